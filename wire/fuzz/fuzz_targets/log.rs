//! Fuzzes `wire_fuzz::log`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_fuzz::log(bytes));
