//! The launcher: an unmodified program runs as in a machine of VMware's, under ptrace(2). What VMX answers is decided in [`crate::Vmx`]; here is how a program's
//! instructions and system calls come to it.
//!
//! ```text
//! in, out, rep ins, rep outs   fault (#GP)                    SIGSEGV with si_code 128   port
//! cpuid, vmcall, vmmcall       an INT3 in their place         SIGTRAP                    code, cpuid
//! iopl, ioperm, vsock          stops at each system call      fake                       calls, vsock
//! ```
//!
//! All threads and children are one guest's. A tracee that dies while it is looked at is no failure: its end is told next.

mod calls;
mod code;
mod cpuid;
mod init;
mod launch;
mod options;
mod proc;
mod record;
mod site;
mod vsock;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::user_regs_struct;
use nix::sys::ptrace::{self, Options as Ptrace};
use nix::unistd::Pid;

pub use init::{InitError, become_init};
pub use launch::{launch, launch_init};
pub use options::{OptionError, Options, USAGE};

use crate::port::{self, Access, Processor};
use crate::sys::trace::{Resume, Stop, cpuid as native_cpuid, resume, wait_any};
use crate::{Direction, MAGIC, Vmx, hold};
use calls::Calls;
use code::Kind;
use cpuid::Identity;
use proc::Proc;
use record::Record;
use site::{Planted, Sites};

/// The signal information of a general protection fault: asm-generic/siginfo.h, `SI_KERNEL`.
const SI_KERNEL: i32 = 0x80;

/// What all fronts share.
pub(crate) type Shared = Arc<Mutex<Vmx>>;

/// A machine of VMware's around one program and what comes of it.
#[derive(Debug)]
pub(crate) struct Tracer {
    vmx: Shared,
    identity: Identity,
    proc: Proc,
    record: Record,
    sites: Sites,
    calls: Option<Calls>,
    threads: HashMap<Pid, Thread>,
    /// By process.
    planted: HashMap<Pid, Planted>,
    root: Pid,
    role: Role,
}

/// What the program is to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It ends with us.
    Program,
    /// It is PID 1, and goes on without us. Its children are followed until they execute another program.
    Init,
}

#[derive(Debug, Default)]
struct Thread {
    process: Option<Pid>,
    /// What is to be done at the end of the system call that it is in.
    call: Option<calls::After>,
    in_call: bool,
}

impl Tracer {
    /// Takes hold of a running program, which is to execute another next.
    pub(crate) fn seize(root: Pid, role: Role, options: &Options, vmx: Shared, proc: Proc) -> io::Result<Tracer> {
        let mut flags = Ptrace::PTRACE_O_TRACESYSGOOD
            | Ptrace::PTRACE_O_TRACEEXEC
            | Ptrace::PTRACE_O_TRACECLONE
            | Ptrace::PTRACE_O_TRACEFORK
            | Ptrace::PTRACE_O_TRACEVFORK;
        if role == Role::Program {
            flags |= Ptrace::PTRACE_O_EXITKILL;
        }
        let record = Record::open(options.log.as_deref(), options.state.as_deref())?;
        ptrace::seize(root, flags)?;
        // an init makes no calls that must be faked, and stopping at each would cost it much
        let calls = (role == Role::Program || options.vsock).then(|| Calls::new(options.vsock));
        Ok(Tracer {
            vmx,
            identity: options.identity,
            proc,
            record,
            sites: Sites::default(),
            calls,
            threads: HashMap::new(),
            planted: HashMap::new(),
            root,
            role,
        })
    }

    /// Runs the machine until its program has ended, and says with which code.
    pub(crate) fn run(mut self) -> io::Result<i32> {
        loop {
            let (pid, stop) = wait_any()?;
            let ended = match stop {
                Stop::Exited(code) => Some(code),
                Stop::Killed(signal) => Some(128 + signal),
                _ => None,
            };
            match ended {
                Some(code) => {
                    self.threads.remove(&pid);
                    self.planted.remove(&pid);
                    if pid == self.root {
                        self.record.state(&lock(&self.vmx));
                        return Ok(code);
                    }
                }
                None => {
                    let (how, signal) = self.stopped(pid, stop).unwrap_or((self.pace(), 0));
                    self.record.state(&lock(&self.vmx));
                    hold(&self.vmx);
                    // it may have died meanwhile
                    resume(pid, how, signal).ok();
                }
            }
            self.record.state(&lock(&self.vmx));
        }
    }

    fn pace(&self) -> Resume {
        if self.calls.is_some() { Resume::ToSyscall } else { Resume::Run }
    }

    /// What is done about a stop: how the tracee goes on, and with which signal.
    fn stopped(&mut self, pid: Pid, stop: Stop) -> io::Result<(Resume, i32)> {
        let process = self.process_of(pid)?;
        let onward = Ok((self.pace(), 0));
        match stop {
            Stop::Event(libc::PTRACE_EVENT_EXEC) => {
                self.planted.remove(&process);
                if self.role == Role::Init && process != self.root {
                    self.threads.remove(&pid);
                    return Ok((Resume::Detach, 0));
                }
                if let Some(calls) = &mut self.calls {
                    calls.executed(process);
                }
                self.plant(process)?;
                onward
            }
            Stop::Syscall => {
                self.system_call(pid, process)?;
                onward
            }
            Stop::Group => Ok((Resume::Listen, 0)),
            Stop::Signal(libc::SIGSEGV) if self.port(pid, process)? => onward,
            Stop::Signal(libc::SIGTRAP) => match self.site(pid, process)? {
                Some(signal) => Ok((self.pace(), signal)),
                None => Ok((self.pace(), libc::SIGTRAP)),
            },
            // the kernel would not have stopped it, and does when a tracer passes the signal on
            Stop::Signal(libc::SIGSTOP) if self.role == Role::Init && process == self.root => onward,
            Stop::Signal(signal) => Ok((self.pace(), signal)),
            Stop::Ready | Stop::Event(_) | Stop::Exited(_) | Stop::Killed(_) => onward,
        }
    }

    /// A thread that is new brings its process, and a process that is new has the memory of its parent.
    fn process_of(&mut self, pid: Pid) -> io::Result<Pid> {
        if let Some(process) = self.threads.entry(pid).or_default().process {
            return Ok(process);
        }
        let (process, parent) = self.proc.family(pid)?;
        self.threads.entry(pid).or_default().process = Some(process);
        if !self.planted.contains_key(&process) {
            let inherited = self.planted.get(&parent).cloned().unwrap_or_default();
            self.planted.insert(process, inherited);
        }
        if let Some(calls) = &mut self.calls {
            calls.born(process, parent);
        }
        Ok(process)
    }

    /// Puts an INT3 where there is an instruction to answer.
    fn plant(&mut self, process: Pid) -> io::Result<()> {
        let (identity, planted) = (self.identity, self.planted.entry(process).or_default());
        let mut memory = self.proc.memory(process);
        for mapping in self.proc.code(process)? {
            for site in self.sites.of(&mapping).iter() {
                let is_ours = identity.vmware || site.kind != Kind::Cpuid;
                if is_ours && site.offset >= mapping.offset {
                    let address = mapping.start + (site.offset - mapping.offset);
                    if address < mapping.end {
                        planted.put(process, address, site, &mut memory)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Answers an access to a port; false where the fault is the program's own.
    fn port(&mut self, pid: Pid, process: Pid) -> io::Result<bool> {
        if ptrace::getsiginfo(pid)?.si_code != SI_KERNEL {
            return Ok(false);
        }
        let mut registers = ptrace::getregs(pid)?;
        let mut code = [0; port::LONGEST];
        let count = self.proc.memory(process).read_some(registers.rip, &mut code);
        let Some((access, length)) = port::decode(&code[..count]) else { return Ok(false) };
        if !processor(&registers).is_meant(access) || !self.answer(process, access, &mut registers) {
            return Ok(false);
        }
        registers.rip += length as u64;
        ptrace::setregs(pid, registers)?;
        Ok(true)
    }

    /// Answers an instruction that an INT3 took the place of: with a signal, or 0. Nothing where the trap is the program's own.
    fn site(&mut self, pid: Pid, process: Pid) -> io::Result<Option<i32>> {
        let mut registers = ptrace::getregs(pid)?;
        let address = registers.rip.wrapping_sub(1);
        let Some(site) = self.planted.get(&process).and_then(|planted| planted.at(address)) else { return Ok(None) };
        let done = match site.kind {
            Kind::Cpuid => {
                let (leaf, sub_leaf) = (low(registers.rax), low(registers.rcx));
                let answer = self.identity.answer(leaf, native_cpuid(leaf, sub_leaf)).map(u64::from);
                [registers.rax, registers.rbx, registers.rcx, registers.rdx] = answer;
                true
            }
            Kind::Hypercall(hypercall) => {
                self.identity.hypercall == Some(hypercall) && self.hypercall(process, &mut registers)
            }
        };
        registers.rip = if done { address + site.length } else { address };
        ptrace::setregs(pid, registers)?;
        // what a processor without it says
        Ok(Some(if done { 0 } else { libc::SIGILL }))
    }

    /// In place of a port, the low half of EDX says what is wanted: bit 0 high bandwidth, bit 1 out of the guest.
    fn hypercall(&mut self, process: Pid, registers: &mut user_regs_struct) -> bool {
        let access = match low(registers.rdx) & 3 {
            1 => Access::High(Direction::In),
            3 => Access::High(Direction::Out),
            _ => Access::Low,
        };
        low(registers.rax) == MAGIC && self.answer(process, access, registers)
    }

    /// Has VMX answer; false where the guest's memory is not there.
    fn answer(&mut self, process: Pid, access: Access, registers: &mut user_regs_struct) -> bool {
        let before = processor(registers);
        let mut after = before;
        if !after.serve(access, &mut lock(&self.vmx), &mut self.proc.memory(process)) {
            return false;
        }
        self.record.access(access, &before, &after);
        let Processor { rax, rbx, rcx, rdx, rsi, rdi, rbp } = after;
        *registers = user_regs_struct { rax, rbx, rcx, rdx, rsi, rdi, rbp, ..*registers };
        true
    }

    /// The beginning or the end of a system call.
    fn system_call(&mut self, pid: Pid, process: Pid) -> io::Result<()> {
        let Some(calls) = &mut self.calls else { return Ok(()) };
        let thread = self.threads.entry(pid).or_default();
        let mut registers = ptrace::getregs(pid)?;
        // Beginnings and ends alternate, but for what a thread was in when it became ours. Until a call is made, its result is this.
        thread.in_call = !thread.in_call && registers.rax.cast_signed() == i64::from(-libc::ENOSYS);
        if thread.in_call {
            let mut memory = self.proc.memory(process);
            thread.call = calls.begin(process, &mut registers, &mut memory);
            if thread.call.is_some() {
                ptrace::setregs(pid, registers)?;
            }
            return Ok(());
        }
        let Some(after) = thread.call.take() else { return Ok(()) };
        let new_code = calls.end(process, after, &mut registers);
        ptrace::setregs(pid, registers)?;
        if new_code { self.plant(process) } else { Ok(()) }
    }
}

/// A thread that panicked has left a whole VMX behind: its steps are small.
fn lock(vmx: &Shared) -> MutexGuard<'_, Vmx> {
    vmx.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The 32-bit half of a register.
#[allow(clippy::cast_possible_truncation, reason = "it is the half that is wanted")]
fn low(register: u64) -> u32 {
    register as u32
}

fn processor(registers: &user_regs_struct) -> Processor {
    let &user_regs_struct { rax, rbx, rcx, rdx, rsi, rdi, rbp, .. } = registers;
    Processor { rax, rbx, rcx, rdx, rsi, rdi, rbp }
}
