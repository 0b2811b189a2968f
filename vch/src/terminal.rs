//! The person's terminal: its size, and raw mode that is undone in every way out. And what terminals are called.

use std::io::{self, IsTerminal};
use std::sync::{Mutex, Once, PoisonError};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use wire::spec::TermSize;

/// The size of the terminal that stdout is on, else stdin or stderr.
pub fn size() -> Option<TermSize> {
    let sizes = [tcgetwinsize(io::stdout()), tcgetwinsize(io::stdin()), tcgetwinsize(io::stderr())];
    let size = sizes.into_iter().flatten().find(|size| size.ws_row > 0 && size.ws_col > 0)?;
    Some(TermSize { rows: size.ws_row, columns: size.ws_col })
}

/// What ps calls the terminal of this device number, `?` for none. Linux's numbers: admin-guide/devices.txt.
pub fn name_of(device: u32) -> String {
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    match major {
        0 => "?".into(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 if minor >= 64 => format!("ttyS{}", minor - 64),
        _ => format!("{major}:{minor}"),
    }
}

/// Makes stdin raw: every key goes to the guest. Nothing happens when it is no terminal. [`Restore`] undoes it, as does a panic.
pub fn make_raw() -> io::Result<()> {
    if !io::stdin().is_terminal() {
        return Ok(());
    }
    let before = tcgetattr(io::stdin())?;
    let mut raw = before.clone();
    raw.make_raw();
    *SAVED.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    restore_at_panic();
    // what has been typed already is kept, and read raw
    Ok(tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?)
}

/// Dropped, the terminal is as it was before [`make_raw`].
#[derive(Debug)]
pub struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let saved = SAVED.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = saved
        && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Drain, &before)
    {
        eprintln!("vch: cannot restore the terminal: {error}: `reset` does");
    }
}

/// Release builds abort at a panic, and drop nothing.
fn restore_at_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            before(panic);
        }));
    });
}

static SAVED: Mutex<Option<Termios>> = Mutex::new(None);
