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
        let [low, high] = code.to_ne_bytes();
        // a jump is a count of instructions to pass over, and both tables are short
        let jump = |count: usize| u8::try_from(count).unwrap_or(u8::MAX);
        program.extend([low, high, jump(then), jump(or)]);
        program.extend(value.to_ne_bytes());
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

#[cfg(test)]
mod tests {
    use super::*;

    const ARCH_I386: u32 = 0x4000_0003;

    /// What the kernel would do: the four instructions that there are.
    fn run(program: &[u8], arch: u32, number: u32) -> u32 {
        let word = |at: usize| u32::from_ne_bytes(program[at..at + 4].try_into().unwrap());
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let (code, then, or) = (program[at * 8], program[at * 8 + 2], program[at * 8 + 3]);
            let value = word(at * 8 + 4);
            at += 1;
            match u16::from(code) {
                LOAD => accumulator = if value == ARCH { arch } else { number },
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
