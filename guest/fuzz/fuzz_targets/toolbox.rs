//! Fuzzes `guest_fuzz::toolbox`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| guest_fuzz::toolbox(bytes));
