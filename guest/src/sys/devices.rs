//! Which devices the processes of a control group can use: a filter that the kernel asks, as container runtimes install it.
//!
//! Sources: bpf(2); Linux, admin-guide/cgroup-v2.rst, "Device controller"; include/uapi/linux/bpf.h; the OCI runtime specification, "Default Devices". Which group: the caller's decision.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

/// The filter, in the kernel and without a group yet: to check it takes the kernel longer than to use it.
#[derive(Debug)]
pub struct Confinement(OwnedFd);

impl Confinement {
    /// Has the kernel check it.
    pub fn load() -> io::Result<Confinement> {
        let load = Load {
            program: BPF_PROG_TYPE_CGROUP_DEVICE,
            count: LENGTH,
            instructions: &raw const FILTER as u64,
            license: c"Apache-2.0".as_ptr() as u64,
            ..Load::default()
        };
        // SAFETY: `load` is what BPF_PROG_LOAD takes, zero where nothing is asked for; its pointers lead to constants of those lengths, which the kernel only reads.
        let program = unsafe { bpf(BPF_PROG_LOAD, &load) }?;
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        Ok(Confinement(unsafe { OwnedFd::from_raw_fd(program) }))
    }

    /// Lets the group's processes, and those of groups below, open no device but those that every container has, as docker does; they may still make nodes of others.
    ///
    /// Root in a container can make device nodes: without this it could read its disks raw, and write to PID 1's serial ports.
    pub fn confine(&self, group: BorrowedFd<'_>) -> io::Result<()> {
        let attach = Attach {
            target: group.as_raw_fd(),
            program: self.0.as_raw_fd(),
            kind: BPF_CGROUP_DEVICE,
            // what runs in the container may confine its own groups further
            flags: BPF_F_ALLOW_MULTI,
        };
        // SAFETY: `attach` is what BPF_PROG_ATTACH takes, and holds no pointer.
        unsafe { bpf(BPF_PROG_ATTACH, &attach) }.map(drop)
    }
}

/// The part of `union bpf_attr` that BPF_PROG_LOAD reads, up to where all is zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    program: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The part that BPF_PROG_ATTACH reads.
#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    kind: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// # Safety
/// `attributes` must be what `command` takes: the kernel follows its pointers.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // JUSTIFICATION: neither nix nor libc has this call.
    // SAFETY: the pointer leads to as many bytes as are said, which outlive the call; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    i32::try_from(Errno::result(result)?).map_err(io::Error::other)
}

/// `struct bpf_insn`: operation, registers (source in the high half), offset, constant.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

const LOAD_WORD: u8 = 0x61;
const SHIFT_RIGHT: u8 = 0x77;
const AND: u8 = 0x57;
const SET: u8 = 0xb7;
const IF_EQUAL: u8 = 0x15;
const IF_OTHER: u8 = 0x55;
const EXIT: u8 = 0x95;

/// What is asked for, and of what: `access_type` of `struct bpf_cgroup_dev_ctx`.
const MAKE_NODE: i32 = 1;
const CHARACTER: i32 = 2;

// registers: 1 holds the question's address, 0 takes the answer
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LENGTH: u32 = 22;

/// Numbers: Linux, admin-guide/devices.txt. A jump counts from the instruction behind it.
#[rustfmt::skip]
static FILTER: [Instruction; LENGTH as usize] = [
    Instruction(LOAD_WORD, ACCESS | 1 << 4, 0, 0),
    Instruction(LOAD_WORD, KIND | 1 << 4, 0, 0),
    Instruction(SHIFT_RIGHT, ACCESS, 0, 16),
    Instruction(AND, KIND, 0, 0xffff),
    Instruction(LOAD_WORD, MAJOR | 1 << 4, 4, 0),
    Instruction(LOAD_WORD, MINOR | 1 << 4, 8, 0),
    Instruction(IF_EQUAL, ACCESS, 13, MAKE_NODE),
    Instruction(IF_OTHER, KIND, 10, CHARACTER),
    // pseudo-terminals
    Instruction(IF_EQUAL, MAJOR, 11, 136),
    // /dev/tty and /dev/ptmx
    Instruction(IF_OTHER, MAJOR, 2, 5),
    Instruction(IF_EQUAL, MINOR, 9, 0),
    Instruction(IF_EQUAL, MINOR, 8, 2),
    // null, zero, full, random, urandom
    Instruction(IF_OTHER, MAJOR, 5, 1),
    Instruction(IF_EQUAL, MINOR, 6, 3),
    Instruction(IF_EQUAL, MINOR, 5, 5),
    Instruction(IF_EQUAL, MINOR, 4, 7),
    Instruction(IF_EQUAL, MINOR, 3, 8),
    Instruction(IF_EQUAL, MINOR, 2, 9),
    Instruction(SET, 0, 0, 0),
    Instruction(EXIT, 0, 0, 0),
    Instruction(SET, 0, 0, 1),
    Instruction(EXIT, 0, 0, 0),
];
