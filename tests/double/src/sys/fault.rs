//! A machine of VMware's for one thread: what it asks at the backdoor faults, and is answered in the handler of that signal.
//!
//! Source: sigaction(2); Linux, arch/x86/kernel/traps.c (#GP: SIGSEGV, SI_KERNEL, no address).

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::libc;
use nix::unistd::getpid;

use crate::port::{self, Processor};
use crate::sys::memory::ProcessMemory;
use crate::{Memory as _, Vmx, hold};

/// While it lives, this thread's ports lead to that VMX. Threads do not share it, so tests in one process do not meet.
///
/// Whoever holds the lock of the [`Vmx`] must not knock. A stack that overflows is killed without std's words: this handler needs a stack of common size.
#[derive(Debug)]
#[must_use]
pub struct Plugged {
    before: Option<Arc<Mutex<Vmx>>>,
    /// It belongs to its thread.
    not_send: PhantomData<Rc<()>>,
}

/// Leads this thread's ports to `vmx`.
pub fn plug(vmx: Arc<Mutex<Vmx>>) -> Plugged {
    install();
    Plugged { before: HOST.with(|host| host.replace(Some(vmx))), not_send: PhantomData }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        HOST.with(|host| *host.borrow_mut() = self.before.take());
    }
}

thread_local! {
    static HOST: RefCell<Option<Arc<Mutex<Vmx>>>> = const { RefCell::new(None) };
}

/// Who had the signal before: std, which looks for stacks that overflow.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

fn install() {
    BEFORE.get_or_init(|| {
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_fault;
        // JUSTIFICATION: nix's handlers get no machine context, and cannot be chained.
        // SAFETY: an all-zero sigaction is a valid value: no flags, an empty mask, the default action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        // SAFETY: as above.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both outlive the call. The handler has the signature that SA_SIGINFO asks for. It may use locks and the allocator though it handles a signal: it
        // does so only for a fault of an instruction that accesses a port, which is not in the midst of either.
        let result = unsafe { libc::sigaction(libc::SIGSEGV, &action, &mut before) };
        assert_eq!(result, 0, "sigaction of SIGSEGV");
        before
    });
}

extern "C" fn on_fault(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // JUSTIFICATION: the interrupted registers are reached by this pointer alone.
    // SAFETY: the kernel gives a handler with SA_SIGINFO these two, valid and its own until it returns.
    let (details, interrupted) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    if is_ports(details) && is_answered(&mut interrupted.uc_mcontext.gregs) {
        return;
    }
    pass_on(signal, info, context);
}

/// Whether it is a fault that an access to a port can have.
fn is_ports(details: &libc::siginfo_t) -> bool {
    const SI_KERNEL: c_int = 128;
    // SAFETY: each SIGSEGV has an address, if only 0.
    details.si_code == SI_KERNEL && unsafe { details.si_addr() }.is_null()
}

type Registers = [libc::greg_t; 23];

/// Answers what was asked at the backdoor, and goes past the instruction.
fn is_answered(registers: &mut Registers) -> bool {
    const BACKWARDS: u64 = 1 << 10;
    let mut memory = ProcessMemory(getpid());
    let at = get(registers, libc::REG_RIP);
    let mut code = [0; port::LONGEST];
    let Some((access, length)) = port::decode(peek(&mut memory, at, &mut code)) else { return false };
    let mut processor = Processor {
        rax: get(registers, libc::REG_RAX),
        rbx: get(registers, libc::REG_RBX),
        rcx: get(registers, libc::REG_RCX),
        rdx: get(registers, libc::REG_RDX),
        rsi: get(registers, libc::REG_RSI),
        rdi: get(registers, libc::REG_RDI),
        rbp: get(registers, libc::REG_RBP),
    };
    let is_backwards = get(registers, libc::REG_EFL) & BACKWARDS != 0;
    if !processor.is_meant(access) || is_backwards {
        return false;
    }
    let Ok(Some(vmx)) = HOST.try_with(|host| host.borrow().clone()) else { return false };
    if !processor.serve(access, &mut vmx.lock().unwrap_or_else(PoisonError::into_inner), &mut memory) {
        return false;
    }
    hold(&vmx);
    for (number, value) in [
        (libc::REG_RAX, processor.rax),
        (libc::REG_RBX, processor.rbx),
        (libc::REG_RCX, processor.rcx),
        (libc::REG_RDX, processor.rdx),
        (libc::REG_RSI, processor.rsi),
        (libc::REG_RDI, processor.rdi),
        (libc::REG_RBP, processor.rbp),
        (libc::REG_RIP, at + length as u64),
    ] {
        registers[number as usize] = value.cast_signed();
    }
    true
}

fn get(registers: &Registers, number: c_int) -> u64 {
    registers[number as usize].cast_unsigned()
}

/// The code at that address; fewer bytes where its mapping ends.
fn peek<'c>(memory: &mut ProcessMemory, address: u64, code: &'c mut [u8]) -> &'c [u8] {
    let length = (1..=code.len()).rev().find(|length| memory.read(address, &mut code[..*length]));
    &code[..length.unwrap_or(0)]
}

/// Not ours: whoever was asked before is asked now, and where there was nobody, the instruction faults again and ends the process.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().filter(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    match before {
        Some(before) => {
            // SAFETY: whoever installed this with SA_SIGINFO gave a function of this signature, and it gets what the kernel gave us.
            unsafe {
                let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                    std::mem::transmute(before.sa_sigaction);
                handler(signal, info, context);
            }
        }
        None => {
            // SAFETY: the default action is always valid, and signal(2) may be called in a handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
}
