//! The system calls that nobody in a containerVM may use, whatever rights it has: docs/decisions/0009 says why these, and why no others.
//!
//! A filter is inherited by every process that PID 1 starts and cannot be taken off, so it holds only what neither PID 1, once it has booted, nor any
//! container needs: ways to put another kernel, or other code, in the place of the one that runs, and to reach devices past it.
//! Sources: Linux, Documentation/userspace-api/seccomp_filter.rst; the numbers, arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl.

use std::io;

use crate::sys::seccomp;

/// kexec_load, kexec_file_load, init_module, finit_module, delete_module, iopl, ioperm, swapon, swapoff, acct, uselib.
const DENIED_64: [u32; 11] = [246, 320, 175, 313, 176, 172, 173, 167, 168, 163, 134];
/// The same for 32-bit programs, which have no kexec_file_load.
const DENIED_32: [u32; 10] = [283, 128, 350, 129, 110, 101, 87, 115, 51, 86];

/// Loads it: from now on those calls fail with `EPERM`, here and in every process to come.
pub fn load() -> io::Result<()> {
    seccomp::load(&program())
}

/// linux/audit.h.
const ARCH_X86_64: u32 = 0xc000_003e;
/// A kernel with the x32 ABI takes the numbers of 64-bit programs with this bit as well: asm/unistd.h.
const X32: u32 = 0x4000_0000;
/// Places in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
/// The low half of the first.
const ARGUMENT: u32 = 16;

/// linux/bpf_common.h: load a word, mask it, compare it, return.
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const EQUALS: u16 = 0x15;
const RETURN: u16 = 0x06;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

fn program() -> Vec<u8> {
    let mut program = Vec::new();
    let mut add = |code: u16, then: usize, or: usize, value: u32| {
        // a jump is a count of instructions to pass over, and both tables are short
        let jump = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        program.extend(instruction(code, jump(then), jump(or), value));
    };
    // the 64-bit part is a mask, its table, and two verdicts
    add(LOAD, 0, 0, ARCH);
    add(EQUALS, 0, 2 + DENIED_64.len() + 2, ARCH_X86_64);
    for (mask, table) in [(!X32, &DENIED_64[..]), (u32::MAX, &DENIED_32[..])] {
        add(LOAD, 0, 0, NUMBER);
        add(AND, 0, 0, mask);
        for (at, &number) in table.iter().enumerate() {
            // to the second verdict
            add(EQUALS, table.len() - at, 0, number);
        }
        add(RETURN, 0, 0, ALLOW);
        add(RETURN, 0, 0, DENY);
    }
    program
}

fn instruction(code: u16, then: u8, or: u8, value: u32) -> [u8; seccomp::INSTRUCTION] {
    let [low, high] = code.to_ne_bytes();
    let [a, b, c, d] = value.to_ne_bytes();
    [low, high, then, or, a, b, c, d]
}

/// The filter of a container that must not speak for its machine: no vsock. VMware's host takes a connection by vsock from a low port for the machine's own word,
/// and a container's root may have such a port. What makes sockets past a filter goes with it, as in docker's profile: io_uring, and for 32-bit programs
/// socketcall, whose arguments a filter cannot see (programs built since glibc 2.23 do not need it).
pub fn without_vsock() -> Vec<u8> {
    const SOCKET: u32 = 41;
    const SOCKET_32: u32 = 359;
    const SOCKETCALL: u32 = 102;
    /// The first argument of a socketcall that makes one: linux/net.h.
    const SYS_SOCKET: u32 = 1;
    const IO_URING_SETUP: u32 = 425;
    const AF_VSOCK: u32 = 40;
    #[rustfmt::skip]
    const PROGRAM: [(u16, u8, u8, u32); 16] = [
        (LOAD, 0, 0, ARCH),
        (EQUALS, 0, 4, ARCH_X86_64),
        (LOAD, 0, 0, NUMBER),
        (AND, 0, 0, !X32),
        (EQUALS, 10, 0, IO_URING_SETUP),
        (EQUALS, 6, 8, SOCKET),
        (LOAD, 0, 0, NUMBER),
        (EQUALS, 7, 0, IO_URING_SETUP),
        (EQUALS, 3, 0, SOCKET_32),
        (EQUALS, 0, 4, SOCKETCALL),
        (LOAD, 0, 0, ARGUMENT),
        (EQUALS, 3, 2, SYS_SOCKET),
        (LOAD, 0, 0, ARGUMENT),
        (EQUALS, 1, 0, AF_VSOCK),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, DENY),
    ];
    PROGRAM.iter().flat_map(|&(code, then, or, value)| instruction(code, then, or, value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH_I386: u32 = 0x4000_0003;

    /// What the kernel would do: the four instructions that there are.
    fn run(program: &[u8], arch: u32, number: u32) -> u32 {
        run_with(program, arch, number, 0)
    }

    fn run_with(program: &[u8], arch: u32, number: u32, argument: u32) -> u32 {
        let word = |at: usize| u32::from_ne_bytes(program[at..at + 4].try_into().unwrap());
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, then, or) = (program[at * 8], program[at * 8 + 2], program[at * 8 + 3]);
            let value = word(at * 8 + 4);
            at += 1;
            match u16::from(code) {
                LOAD => {
                    accumulator = match value {
                        ARCH => arch,
                        NUMBER => number,
                        _ => argument,
                    }
                }
                AND => accumulator &= value,
                EQUALS => at += usize::from(if accumulator == value { then } else { or }),
                RETURN => return value,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn of_all_numbers_exactly_those_are_denied() {
        let program = program();
        assert_eq!(program.len() % seccomp::INSTRUCTION, 0);
        for number in 0..1000 {
            let verdict = |denied: &[u32]| if denied.contains(&number) { DENY } else { ALLOW };
            assert_eq!(run(&program, ARCH_X86_64, number), verdict(&DENIED_64), "{number}");
            assert_eq!(run(&program, ARCH_X86_64, number | X32), verdict(&DENIED_64), "{number} of x32");
            assert_eq!(run(&program, ARCH_I386, number), verdict(&DENIED_32), "{number} of i386");
        }
        assert_eq!(run(&program, ARCH_X86_64, u32::MAX), ALLOW);
    }

    #[test]
    fn of_all_ways_to_a_socket_exactly_those_to_vsock_are_denied() {
        let program = without_vsock();
        for number in 0..1000 {
            for argument in 0..50 {
                let verdict = |denied| if denied { DENY } else { ALLOW };
                let io_uring = i64::from(number) == libc::SYS_io_uring_setup;
                let vsock = argument == 40;
                let of_64 = verdict(io_uring || i64::from(number) == libc::SYS_socket && vsock);
                let of_32 = verdict(io_uring || number == 359 && vsock || number == 102 && argument == 1);
                assert_eq!(run_with(&program, ARCH_X86_64, number, argument), of_64, "{number} {argument}");
                assert_eq!(
                    run_with(&program, ARCH_X86_64, number | X32, argument),
                    of_64,
                    "{number} of x32 {argument}"
                );
                assert_eq!(run_with(&program, ARCH_I386, number, argument), of_32, "{number} of i386 {argument}");
            }
        }
    }

    #[test]
    fn the_kernel_denies_what_the_filter_says() {
        use nix::errno::Errno;
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

        // a filter is its thread's
        let denied = std::thread::spawn(|| {
            let open = |family| socket(family, SockType::Stream, SockFlag::empty(), None).map(drop);
            nix::sys::prctl::set_no_new_privs().unwrap();
            seccomp::load(&without_vsock()).unwrap();
            open(AddressFamily::Unix).unwrap();
            open(AddressFamily::Vsock)
        });
        assert_eq!(denied.join().unwrap(), Err(Errno::EPERM));
        let mut loaded = false;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sys::prctl::set_no_new_privs().unwrap();
                load().unwrap();
                // PID 1 asks VMware's host long after it has denied itself other things
                let vsock = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::empty(), None);
                loaded = vsock.err() != Some(Errno::EPERM);
            });
        });
        assert!(loaded);
    }

    #[test]
    fn the_numbers_are_those_of_the_c_library() {
        let known = [
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_acct,
            libc::SYS_uselib,
        ];
        assert_eq!(known.map(|number| u32::try_from(number).unwrap()), DENIED_64);
    }
}
