//! Which system calls of a tracee are not made as it asks: those for ports, which VMware's guests need not make, and those of vsock. Numbers and arguments: x86-64.

use std::collections::HashMap;

use libc::user_regs_struct;
use nix::errno::Errno;
use nix::unistd::Pid;

use super::vsock::{AF_VSOCK, Fate, Sockets};
use crate::{Memory, Origin};

/// What programs have asked for so far.
#[derive(Debug)]
pub(crate) struct Calls {
    vsock: bool,
    sockets: HashMap<Pid, Sockets>,
}

/// What is to be done at a call's end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum After {
    /// It was not made, and this is its result.
    Return(u64),
    /// Its arguments were ours: these are the program's (RDI, RSI, RDX).
    Restore { arguments: [u64; 3], is_new_socket: bool },
    /// There may be code that was not there before.
    NewCode,
}

/// Below the stack pointer, the bytes that a function may use: System V ABI, "The Stack Frame".
const RED_ZONE: u64 = 128;
/// `sizeof(struct sockaddr_un)`.
const UNIX_ADDRESS: usize = 110;
const PROT_EXEC: u64 = 4;
/// linux/socket.h
const AF_UNIX: u16 = 1;

impl Calls {
    pub(crate) fn new(vsock: bool) -> Calls {
        Calls { vsock, sockets: HashMap::new() }
    }

    /// A child has its parent's sockets.
    pub(crate) fn born(&mut self, process: Pid, parent: Pid) {
        if let Some(inherited) = self.sockets.get(&parent).cloned() {
            self.sockets.entry(process).or_insert(inherited);
        }
    }

    pub(crate) fn executed(&mut self, process: Pid) {
        self.sockets.remove(&process);
    }

    /// At the beginning of a call. Registers may be changed where there is something to do after it.
    pub(crate) fn begin(
        &mut self,
        process: Pid,
        registers: &mut user_regs_struct,
        memory: &mut dyn Memory,
    ) -> Option<After> {
        let [first, second, third] = [registers.rdi, registers.rsi, registers.rdx];
        let refused = |registers: &mut user_regs_struct, result: Result<u64, Errno>| {
            registers.orig_rax = u64::MAX;
            let errno = |errno: Errno| i64::from(-(errno as i32)).cast_unsigned();
            Some(After::Return(result.unwrap_or_else(errno)))
        };
        let number = i64::try_from(registers.orig_rax).unwrap_or(-1);
        match number {
            libc::SYS_iopl | libc::SYS_ioperm => return refused(registers, Ok(0)),
            libc::SYS_mmap | libc::SYS_mprotect => return (third & PROT_EXEC != 0).then_some(After::NewCode),
            libc::SYS_socket if first == AF_VSOCK && !self.vsock => {
                return refused(registers, Err(Errno::EAFNOSUPPORT));
            }
            libc::SYS_socket if first == AF_VSOCK => {
                (registers.rdi, registers.rdx) = (u64::from(AF_UNIX), 0);
                return Some(After::Restore { arguments: [first, second, third], is_new_socket: true });
            }
            _ => {}
        }
        let sockets = self.sockets.get_mut(&process).filter(|sockets| sockets.has(first))?;
        let mut address = || {
            let mut bytes = vec![0; usize::try_from(third).unwrap_or_default().min(UNIX_ADDRESS)];
            if memory.read(second, &mut bytes) { bytes } else { Vec::new() }
        };
        let fate = match number {
            libc::SYS_bind => sockets.bind(first, &address()),
            libc::SYS_connect => sockets.connect(first, &address()),
            libc::SYS_setsockopt | libc::SYS_getsockopt => sockets.option(first, second),
            libc::SYS_close => {
                sockets.close(first);
                Fate::Pass
            }
            _ => Fate::Pass,
        };
        match fate {
            Fate::Pass => None,
            Fate::Answer(result) => refused(registers, result),
            Fate::Connect { port, origin } => {
                let ours = server_address(port, origin);
                registers.rsi = (registers.rsp - RED_ZONE - UNIX_ADDRESS as u64) & !15;
                registers.rdx = ours.len() as u64;
                if !memory.write(registers.rsi, &ours) {
                    return refused(registers, Err(Errno::EFAULT));
                }
                Some(After::Restore { arguments: [first, second, third], is_new_socket: false })
            }
        }
    }

    /// At its end: whether there may be new code.
    pub(crate) fn end(&mut self, process: Pid, after: After, registers: &mut user_regs_struct) -> bool {
        match after {
            After::Return(result) => registers.rax = result,
            After::Restore { arguments, is_new_socket } => {
                [registers.rdi, registers.rsi, registers.rdx] = arguments;
                let number = registers.rax.cast_signed();
                if is_new_socket && number >= 0 {
                    self.sockets.entry(process).or_default().add(registers.rax);
                }
            }
            After::NewCode => return true,
        }
        false
    }
}

/// Where our server listens for this process of ours: a name that is no file, one for each port and privilege.
pub(crate) fn server_name(port: u32, origin: Origin) -> Vec<u8> {
    format!("vmx-double.{}.{port}.{origin:?}", std::process::id()).into_bytes()
}

/// `struct sockaddr_un`, as much of it as is used: unix(7), "abstract".
fn server_address(port: u32, origin: Origin) -> Vec<u8> {
    [&AF_UNIX.to_ne_bytes()[..], &[0], &server_name(port, origin)].concat()
}
