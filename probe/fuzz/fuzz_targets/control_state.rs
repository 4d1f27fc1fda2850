//! The target of this file's name: see `uptime_probe::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    uptime_probe::fuzzing::run(env!("CARGO_BIN_NAME"), bytes);
});
