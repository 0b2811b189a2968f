//! One run, from its beginning to its end: two processes part, one becomes the program, the other its tracer; and the fronts that share its VMX.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::termios::{self, SetArg};
use nix::unistd::{Pid, pipe2};

use super::init::{InitError, Lookout};
use super::options::{Options, key_and_value, unescape};
use super::proc::Proc;
use super::{Role, Shared, Tracer, calls, lock};
use crate::Origin;
use crate::sys::trace::{Fork, fork};
use crate::vsock::{RPCI_PORT, TCLO_PORT, serve};

/// Runs the program that the options name, and says with which code it ended.
pub fn launch(options: Options) -> io::Result<i32> {
    part(options, "/proc", || Ok(()))
}

/// The same as the init of a machine, whose fw_cfg has the options.
pub fn launch_init() -> Result<i32, InitError> {
    let io = |what: &'static str| move |source| InitError::Io { what, source };
    let lookout = Lookout::open().map_err(io("cannot look at the machine"))?;
    let options = lookout.options()?;
    part(options, &Lookout::proc(), || lookout.close()).map_err(io("cannot begin"))
}

/// `then` is done by who becomes the program, when the tracer has all that it needs.
fn part(mut options: Options, proc: &str, then: impl FnOnce() -> io::Result<()>) -> io::Result<i32> {
    let (ready, tell) = pipe2(OFlag::O_CLOEXEC)?;
    let (mut ready, mut tell) = (File::from(ready), File::from(tell));
    let before = Pid::this();
    let (root, role) = match (fork()?, options.pid1) {
        // the pipe has one end in each
        (Fork::Parent(child), false) => (child, Role::Program),
        (Fork::Child, true) => (before, Role::Init),
        _ => {
            drop(tell);
            if ready.read_exact(&mut [0]).is_err() {
                // the tracer gave up, and has said why
                std::process::exit(125);
            }
            then()?;
            let (name, arguments) = options.program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
            let error = Command::new(name).args(arguments).exec();
            return Err(io::Error::new(error.kind(), format!("{}: {error}", name.display())));
        }
    };
    drop(ready);
    let vmx = Arc::new(Mutex::new(std::mem::take(&mut options.vmx)));
    let tracer = Tracer::seize(root, role, &options, vmx.clone(), Proc::open(proc)?)?;
    start_fronts(&options, &vmx)?;
    tell.write_all(&[1])?;
    drop(tell);
    tracer.run()
}

fn start_fronts(options: &Options, vmx: &Shared) -> io::Result<()> {
    // both ways, so that neither a pipe without a writer nor a terminal without a carrier keeps us, and neither ends
    let open = |path: &Path| OpenOptions::new().read(true).append(true).create(true).open(path);
    if let Some(path) = &options.state {
        make_raw(&open(path)?);
    }
    if let Some(path) = &options.control {
        let (orders, vmx) = (open(path)?, vmx.clone());
        // no other process of this machine may write there
        let mut kmsg = options.kmsg.as_ref().map(|path| OpenOptions::new().append(true).open(path)).transpose()?;
        make_raw(&orders);
        thread::spawn(move || {
            for order in BufReader::new(orders).split(b'\n').map_while(Result::ok) {
                obey(&order, &vmx, kmsg.as_mut());
            }
        });
    }
    if options.vsock {
        for port in [RPCI_PORT, TCLO_PORT] {
            for origin in [Origin::Privileged, Origin::Unprivileged] {
                let name = SocketAddr::from_abstract_name(calls::server_name(port, origin))?;
                let (listener, vmx) = (UnixListener::bind_addr(&name)?, vmx.clone());
                thread::spawn(move || listen(&listener, port, origin, &vmx));
            }
        }
    }
    Ok(())
}

fn listen(listener: &UnixListener, port: u32, origin: Origin, vmx: &Shared) {
    for connection in listener.incoming().map_while(Result::ok) {
        let vmx = vmx.clone();
        thread::spawn(move || serve(connection.into(), port, origin, &vmx));
    }
}

/// A terminal would change what is written to it; a file does not.
fn make_raw(file: &File) {
    if let Ok(mut settings) = termios::tcgetattr(file) {
        termios::cfmakeraw(&mut settings);
        termios::tcsetattr(file, SetArg::TCSANOW, &settings).ok();
    }
}

/// What a kernel says that has noticed that its machine is another now: Linux, drivers/char/random.c, `add_vmfork_randomness`. This machine has no device by which
/// it could.
const NOTICED: &[u8] = b"<5>random: crng reseeded due to virtual machine fork\n";

/// `tclo TEXT`, `info KEY=VALUE`, `time SECONDS` or `clone`; anything else is said on the error output.
fn obey(order: &[u8], vmx: &Shared, kmsg: Option<&mut File>) {
    let mut words = order.splitn(2, |&byte| byte == b' ');
    let (verb, text) = (words.next().unwrap_or_default(), unescape(words.next().unwrap_or_default()));
    match (verb, key_and_value(&text)) {
        (b"tclo", _) => lock(vmx).questions.push_back(text),
        (b"info", Some((key, value))) => drop(lock(vmx).guestinfo.insert(key, value.to_vec())),
        (b"time", _) => {
            lock(vmx).time = str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).map(Duration::from_secs)
        }
        (b"clone", _) => {
            // one that cannot be written is missed by who reads it
            if let Some(kmsg) = kmsg {
                kmsg.write_all(NOTICED).ok();
            }
            lock(vmx).clone_guest();
        }
        _ => eprintln!("vmx-double: no such order: {}", order.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Vmx;

    #[test]
    fn orders_are_obeyed() {
        let vmx = Arc::new(Mutex::new(Vmx::default()));
        for order in
            [&b"tclo ping"[..], b"tclo Set_Option\\x00a b", b"info guestinfo.A=b=c", b"info a", b"what", b"", b"time 7"]
        {
            obey(order, &vmx, None);
        }
        assert_eq!(lock(&vmx).time, Some(Duration::from_secs(7)));
        lock(&vmx).rpci(Origin::Privileged, b"instantclone.freeze");
        assert!(lock(&vmx).is_frozen());
        obey(b"clone", &vmx, None);
        assert!(!lock(&vmx).is_frozen());
        let vmx = lock(&vmx);
        assert_eq!(vmx.questions, [&b"ping"[..], b"Set_Option\0a b"].map(<[u8]>::to_vec));
        assert_eq!(vmx.guestinfo.len(), 1);
        assert_eq!(vmx.guestinfo["guestinfo.a"], b"b=c");
    }
}
