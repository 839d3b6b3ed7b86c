//! Floor 6: `inlaid attention`. Knows alignments and how to draw them.

use crate::args::{ModelArg, Run, token_name};
use crate::output::{Failure, json, print};
use clap::{Args, ValueEnum};
use inlaid::align::{self, Alignment, Which};
use inlaid::model::Model;
use png::{BitDepth, ColorType, Encoder};
use serde_json::json;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

const AFTER: &str = "\
Examples:
  inlaid attention ./bert --text \"A cat sat.\" --layer 2 --head 0
  inlaid attention ./marian --text \"Good morning.\" --target \"Guten Morgen.\" --png alignment.png
  inlaid attention demo --ids 1,2,3 --json";

/// Edge of a picture's square for one pair of tokens, in pixels.
const SQUARE: usize = 16;

/// Show what attends to what
///
/// Prints one row of weights for each token that attends, or draws them with --png (dark is much). JSON: `shape` (tokens
/// that attend, tokens attended to), `weights`, `rows` and `columns` (the tokens' names).
#[derive(Args)]
#[command(after_help = AFTER)]
pub struct Attention {
    #[command(flatten)]
    model: ModelArg,
    /// The text; of a model with an encoder, what the encoder reads
    #[arg(long, value_name = "TEXT", required_unless_present = "ids", allow_hyphen_values = true)]
    text: Option<String>,
    /// What the decoder beside an encoder writes
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    target: Option<String>,
    /// Token ids in place of the text, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "text")]
    ids: Vec<u32>,
    /// Token ids in place of the target; they begin with what the decoder begins with
    #[arg(long, value_delimiter = ',', value_name = "IDS", conflicts_with = "target")]
    decoder_ids: Vec<u32>,
    /// The block, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    layer: usize,
    /// The head, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    head: usize,
    /// Which attention [default: the decoder's to the source, where there is one]
    #[arg(long, value_name = "WHICH")]
    of: Option<OfWhat>,
    /// Draw the weights into a PNG file
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run: Run,
}

/// Which attention of a model.
#[derive(Clone, Copy, ValueEnum)]
enum OfWhat {
    /// The encoder's, of the text to itself
    Encoder,
    /// The decoder's, to what it wrote
    Decoder,
    /// The decoder's, to what the encoder read
    Cross,
}

/// Runs the command.
///
/// # Errors
/// Why it could not.
pub fn run(args: &Attention) -> Result<(), Failure> {
    let model = args.run.open(&args.model.model)?;
    let which = args.of.map_or(align::usual(&model), |of| match of {
        OfWhat::Encoder => Which::Encoder,
        OfWhat::Decoder => Which::Decoder,
        OfWhat::Cross => Which::Cross,
    });
    let ids = match &args.text {
        Some(text) => model.tokenizer()?.encode(text, true, true)?,
        None => args.ids.clone(),
    };
    let target = target(args, &model)?;
    let found = align::attention(&model, &ids, &target, which, args.layer, args.head)?;
    let seq2seq = model.arch().reads_source();
    let [rows, cols] = match (which, seq2seq) {
        (Which::Cross, _) => [&target, &ids],
        (Which::Decoder, true) => [&target, &target],
        _ => [&ids, &ids],
    };
    if let Some(path) = &args.png {
        draw(path, &found)?;
    }
    let names = |ids: &[u32]| -> Vec<String> {
        ids.iter().map(|id| token_name(&model, *id).unwrap_or_else(|| id.to_string())).collect()
    };
    let weights: Vec<&[f32]> = found.weights.chunks_exact(found.cols.max(1)).collect();
    if args.json {
        return json(&json!({"shape": [found.rows, found.cols], "weights": weights, "rows": names(rows),
            "columns": names(cols)}));
    }
    if args.png.is_some() {
        return Ok(());
    }
    let mut out = String::new();
    for (name, row) in names(rows).iter().zip(weights) {
        let words: Vec<String> = row.iter().map(|x| format!("{x:.3}")).collect();
        let _ = writeln!(out, "{:<16} {}", name.escape_debug().to_string(), words.join(" ")); // a String takes everything
    }
    print(&out)
}

/// What the decoder beside an encoder writes.
fn target(args: &Attention, model: &Model) -> Result<Vec<u32>, Failure> {
    if !model.arch().reads_source() {
        return Ok(Vec::new());
    }
    if !args.decoder_ids.is_empty() {
        return Ok(args.decoder_ids.clone());
    }
    let mut ids = vec![model.first_token()?];
    if let Some(text) = &args.target {
        ids.extend(model.tokenizer()?.encode(text, true, true)?);
    }
    Ok(ids)
}

/// Writes a picture, to a temporary name first.
fn draw(path: &Path, found: &Alignment) -> Result<(), Failure> {
    let cannot = |e: &dyn std::fmt::Display| Failure::Cannot(format!("{}: {e}", path.display()));
    let (width, height) = (found.cols * SQUARE, found.rows * SQUARE);
    let shade = |i: usize| {
        let (x, y) = (i % width / SQUARE, i / width / SQUARE);
        255 - (found.weights[y * found.cols + x].clamp(0.0, 1.0) * 255.0).round() as u8
    };
    let pixels: Vec<u8> = (0..width * height).map(shade).collect();
    let temporary = path.with_extension("png.part");
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let mut encoder =
            Encoder::new(BufWriter::new(File::create(&temporary)?), width as u32, height as u32);
        encoder.set_color(ColorType::Grayscale);
        encoder.set_depth(BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&pixels)?;
        writer.finish()?;
        Ok(fs::rename(&temporary, path)?)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&temporary); // what failed is reported
        cannot(&e)
    })
}
