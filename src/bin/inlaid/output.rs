//! Floor 6: what the commands print, and how they fail. Knows no models.

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Why a command ends early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The options contradict each other or the model.
    #[error("{0}")]
    Usage(String),
    /// The engine said no.
    #[error(transparent)]
    Engine(#[from] inlaid::Error),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Cannot(String),
    /// Standard output is gone or full.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Writes to standard output at once.
///
/// # Errors
/// `Output`.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes one JSON object and a line end to standard output.
///
/// # Errors
/// `Output`.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// Writes a line to standard error; where that is gone too, nobody is left to tell.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// The text in `text`, or in standard input for `-`.
///
/// # Errors
/// `Cannot` where that is not UTF-8 or cannot be read.
pub fn text_or_stdin(text: &str) -> Result<String, Failure> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|e| Failure::Cannot(format!("standard input: {e}")))?;
    utf8("standard input", bytes)
}

/// The text of a file, or of standard input for `-`.
///
/// # Errors
/// `Cannot` where that is not UTF-8 or cannot be read.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    if path == Path::new("-") {
        return text_or_stdin("-");
    }
    let bytes = std::fs::read(path).map_err(|e| Failure::Cannot(format!("{}: {e}", path.display())))?;
    utf8(&path.to_string_lossy(), bytes)
}

fn utf8(name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::Cannot(format!("{name}: expected UTF-8, found another byte at {at}"))
    })
}

/// What a bar counts.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Tokens, or whatever else is counted singly.
    Plain,
}

/// A progress bar on standard error for work that turns out to be long; never seen where that is no terminal.
pub struct Bar {
    what: &'static str,
    unit: Unit,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Bar {
    /// Work that takes less than this shows no bar.
    const PATIENCE: Duration = Duration::from_millis(300);

    /// A bar called `what`.
    pub fn new(what: &'static str, unit: Unit) -> Bar {
        Bar { what, unit, start: Instant::now(), bar: None }
    }

    /// `done` of `total` are done.
    pub fn at(&mut self, done: u64, total: u64) {
        if self.bar.is_none() && self.start.elapsed() >= Bar::PATIENCE {
            let counts = match self.unit {
                Unit::Bytes => "{bytes} of {total_bytes}, {bytes_per_sec}",
                Unit::Plain => "{pos} of {len}, {per_sec}",
            };
            let style =
                ProgressStyle::with_template(&format!("{{msg}} [{{wide_bar}}] {counts}, {{eta}} left"));
            let bar = ProgressBar::new(total).with_message(self.what);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
