//! Floor 6: the model that ships, a part of this program's file. Knows what its files are called.

use inlaid::Result;
use inlaid::format::files::{Files, Part};
use std::sync::Arc;

/// What stands for it on the command line.
pub const NAME: &str = "demo";

macro_rules! demo_files {
    ($($name:literal),*) => {
        [$(($name, include_bytes!(concat!("../../../demo/", $name)).as_slice())),*]
    };
}

static FILES: [(&str, &[u8]); 5] = demo_files![
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json"
];

/// Its files. The weights are used where the system mapped this program.
///
/// # Errors
/// As [`Files::named`].
pub fn files() -> Result<Files> {
    Files::named(FILES.map(|(name, bytes)| (name.to_owned(), Part::Memory(Arc::new(bytes)))))
}
