//! Fuzzes `iso_builder_fuzz::iso`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    iso_builder_fuzz::iso(bytes);
});
