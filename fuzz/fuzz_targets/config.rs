//! A `config.json`, and the same bytes as a `generation_config.json`.
#![no_main]

use inlaid::format::config::Config;
use inlaid::format::generation::GenerationConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = Config::parse("fuzz", bytes) else { return };
    let _ = GenerationConfig::read(Some(&config), &config);
    let _ = config.finish(&[]);
});
