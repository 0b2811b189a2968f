//! Fuzzes `wire_fuzz::spec`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire_fuzz::spec(bytes));
