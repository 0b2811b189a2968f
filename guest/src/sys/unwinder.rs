//! In place of the unwinder and the makers of backtraces, which PID 1 has no use for.
//!
//! A panic of PID 1 is told by its hook and ends in the machine's power-off, so nothing is ever unwound, and a stripped program has no names to put in a
//! backtrace. The standard library links the machinery for both all the same: 280 KiB of a PID 1 that may have 1,024. These functions take the place of
//! libunwind's (the names are those of the Itanium C++ ABI, level I), and with them goes everything that only they would have called.
//! Programs that unwind, such as the tests, keep theirs: this module is there only where a panic aborts.

/// Names of the unwinder's that nothing calls where a panic aborts.
macro_rules! never_called {
    ($($name:ident)*) => { $(
        // JUSTIFICATION: the linker takes a function by its name.
        // SAFETY: no other of that name is linked: libunwind is taken only for names that are missing. Whatever is passed is not looked at.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> usize {
            std::process::abort()
        }
    )* };
}

never_called! {
    _Unwind_DeleteException _Unwind_FindEnclosingFunction _Unwind_GetCFA _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_RaiseException _Unwind_Resume _Unwind_SetGR
    _Unwind_SetIP
}

/// Walks no frame, and says that it has come to the end.
// JUSTIFICATION: the linker takes a function by its name.
// SAFETY: as above. The callback that it is given is not called.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace() -> usize {
    const URC_END_OF_STACK: usize = 5;
    URC_END_OF_STACK
}
