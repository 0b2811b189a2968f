//! Terminal sizes and raw lines.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, ResolveFlag};
use nix::pty::Winsize;
use nix::sys::termios::{self, BaudRate, ControlFlags};
use wire::spec::TermSize;

use crate::within::open_below;

/// A new pseudo-terminal of that size. Both descriptors are closed on exec.
///
/// Both ends come from the file system of terminals itself: what a container has put in the place of its /dev/ptmx may be any device, and PID 1 may open them all.
pub fn open(size: TermSize) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open_below(AT_FDCWD, b"/dev/pts/ptmx", flags, ResolveFlag::RESOLVE_NO_SYMLINKS)?;
    let unlocked: libc::c_int = 0;
    // JUSTIFICATION: nix opens terminals by the name /dev/ptmx only.
    // SAFETY: the argument is an int that outlives the call, which only reads it.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) })?;
    // SAFETY: the argument is a number.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags.bits()) })?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    resize(&master, size)?;
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

/// Makes a serial line carry bytes as they are, 8N1; tells the speed that it has then, in baud.
///
/// Hardware flow control is on if the line says at this moment that the other end is ready (CTS), as QEMU's and ESXi's UARTs do: whoever
/// drives that line means it, and a sender that heeds it overruns nobody. On three wires CTS never comes, and waiting for it would be for ever.
pub fn make_raw(line: impl AsFd, speed: u32) -> io::Result<u32> {
    let mut settings = termios::tcgetattr(&line)?;
    termios::cfmakeraw(&mut settings);
    settings.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
    settings.control_flags.set(ControlFlags::CRTSCTS, is_clear_to_send(&line));
    let known = BAUD_RATES.iter().find(|(number, _)| *number == speed);
    let &(_, rate) = known.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such speed"))?;
    termios::cfsetspeed(&mut settings, rate)?;
    termios::tcsetattr(&line, termios::SetArg::TCSANOW, &settings)?;
    // a driver that cannot do it takes the next best and says so only here
    let done = termios::cfgetospeed(&termios::tcgetattr(&line)?);
    Ok(BAUD_RATES.iter().find(|(_, rate)| *rate == done).map_or(0, |(number, _)| *number))
}

/// The other end asserts CTS. A line that has no such signal, as a pseudo-terminal, does not.
fn is_clear_to_send(line: impl AsFd) -> bool {
    let mut signals: libc::c_int = 0;
    // JUSTIFICATION: nix has no TIOCMGET.
    // SAFETY: the argument is an int that outlives the call, which only writes it.
    let result = unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCMGET as _, &mut signals) };
    result == 0 && signals & libc::TIOCM_CTS != 0
}

/// Bytes that a line has taken and not yet sent; none for what is no line.
pub fn unsent(line: impl AsFd) -> usize {
    let mut count: libc::c_int = 0;
    // JUSTIFICATION: nix has no TIOCOUTQ.
    // SAFETY: the argument is an int that outlives the call, which only writes it.
    match unsafe { libc::ioctl(line.as_fd().as_raw_fd(), libc::TIOCOUTQ as _, &mut count) } {
        0 => usize::try_from(count).unwrap_or_default(),
        _ => 0,
    }
}

/// The names of [`wire::spec::SPEEDS`] in termios(3).
const BAUD_RATES: [(u32, BaudRate); 18] = [
    (9600, BaudRate::B9600),
    (19_200, BaudRate::B19200),
    (38_400, BaudRate::B38400),
    (57_600, BaudRate::B57600),
    (115_200, BaudRate::B115200),
    (230_400, BaudRate::B230400),
    (460_800, BaudRate::B460800),
    (500_000, BaudRate::B500000),
    (576_000, BaudRate::B576000),
    (921_600, BaudRate::B921600),
    (1_000_000, BaudRate::B1000000),
    (1_152_000, BaudRate::B1152000),
    (1_500_000, BaudRate::B1500000),
    (2_000_000, BaudRate::B2000000),
    (2_500_000, BaudRate::B2500000),
    (3_000_000, BaudRate::B3000000),
    (3_500_000, BaudRate::B3500000),
    (4_000_000, BaudRate::B4000000),
];

fn winsize(size: TermSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_line_is_raw_at_each_speed_and_has_no_flow_control_without_modem_lines() {
        let (master, slave) = open(TermSize { rows: 24, columns: 80 }).unwrap();
        for speed in wire::spec::SPEEDS {
            assert_eq!(make_raw(&slave, speed).unwrap(), speed);
        }
        assert!(make_raw(&slave, 300).is_err());
        let flags = termios::tcgetattr(&slave).unwrap().control_flags;
        assert!(!flags.contains(ControlFlags::CRTSCTS) && flags.contains(ControlFlags::CLOCAL));
        let all: Vec<u8> = (0..=255).collect();
        let (mut master, mut slave) = (File::from(master), File::from(slave));
        let mut read = [0; 256];
        master.write_all(&all).unwrap();
        slave.read_exact(&mut read).unwrap();
        assert_eq!(read[..], all);
        slave.write_all(&all).unwrap();
        master.read_exact(&mut read).unwrap();
        assert_eq!(read[..], all);
    }
}
