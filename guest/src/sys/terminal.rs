//! Terminal sizes and raw lines.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios;
use wire::spec::TermSize;

/// A new pseudo-terminal of that size. Both descriptors are closed on exec.
pub fn open(size: TermSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let OpenptyResult { master, slave } = openpty(Some(&winsize(size)), None)?;
    for fd in [&master, &slave] {
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    }
    Ok((master, slave))
}

/// Changes the size; the kernel tells the foreground processes by SIGWINCH.
pub fn resize(master: impl AsFd, size: TermSize) -> io::Result<()> {
    // JUSTIFICATION: nix has no TIOCSWINSZ.
    // SAFETY: the argument is a whole winsize that outlives the call, which only reads it.
    match unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ as _, &winsize(size)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a serial line carry bytes as they are, 8N1, at 115200 baud, with hardware flow control where the modem lines offer it.
pub fn make_raw(line: impl AsFd) -> io::Result<()> {
    let mut settings = termios::tcgetattr(&line)?;
    termios::cfmakeraw(&mut settings);
    settings.control_flags |= termios::ControlFlags::CLOCAL | termios::ControlFlags::CREAD;
    termios::cfsetspeed(&mut settings, termios::BaudRate::B115200)?;
    termios::tcsetattr(&line, termios::SetArg::TCSANOW, &settings)?;
    Ok(())
}

fn winsize(size: TermSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}
