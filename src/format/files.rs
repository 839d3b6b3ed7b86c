//! Floor 3: a model's files by name: in a directory, beside a weight file, in the caller's memory or open descriptors.
//! Knows which names a model has, and no format.

use super::config::Config;
use super::generation::GenerationConfig;
use super::gguf::{self, Gguf};
use super::safetensors;
pub use super::source::Load;
use super::source::{Memory, Progress, Reading, Source};
use super::tensors::Tensors;
use super::{bad, json, shown};
use crate::error::{Error, Result};
use crate::order::sorted;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Weights in one file.
pub const SINGLE: &str = "model.safetensors";
/// The list of shards, where weights are in several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// What of a directory belongs to the tokenizer, and is copied as it is.
#[cfg(any(feature = "tokenizer", feature = "train"))]
pub(crate) const TEXT: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
];
/// A file of those is small; what is larger is something else.
#[cfg(any(feature = "tokenizer", feature = "train"))]
pub(crate) const MAX_TEXT: u64 = 64 << 20;

/// PyTorch's weights in one file.
pub const TORCH: &str = "pytorch_model.bin";

/// One named part of a model that does not come from a directory.
pub enum Part {
    /// The caller's memory.
    Memory(Memory),
    /// An open file's bytes from `offset` on: `len` of them, or all that follow.
    File {
        /// The open file; its position is neither used nor moved (on Unix and Windows).
        file: File,
        /// First byte.
        offset: u64,
        /// Bytes, or to the end.
        len: Option<u64>,
    },
}

/// Where a model's files are.
pub struct Files {
    place: Place,
    /// The weight file, where the caller named one.
    chosen: Option<String>,
    /// The metadata of a GGUF file, once somebody asked.
    gguf: OnceLock<Gguf>,
}

enum Place {
    Dir(PathBuf),
    Named(BTreeMap<String, Part>),
}

/// How the weights are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One safetensors file of this name.
    Single(String),
    /// Shards by `model.safetensors.index.json`.
    Sharded,
    /// A GGUF file of this name: weights, config and tokenizer in one.
    Gguf(String),
    /// PyTorch's or NumPy's archive of this name.
    Archive(String),
}

impl Files {
    /// A directory, a `.safetensors` file with its config beside it, an index of shards, or a `.gguf` file.
    ///
    /// # Errors
    /// `Io` where `path` is not there or not readable, `Format` where it is neither a directory nor a file.
    pub fn at(path: impl AsRef<Path>) -> Result<Files> {
        let path = path.as_ref();
        // Follows symbolic links: caches of model files are made of them.
        let meta = std::fs::metadata(path).map_err(Error::io(path))?;
        if meta.is_dir() {
            return Ok(Files { place: Place::Dir(path.to_owned()), chosen: None, gguf: OnceLock::new() });
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let (true, Some(name)) = (meta.is_file(), name) else {
            return Err(bad(
                &path.to_string_lossy(),
                "expected a directory or a regular file with a UTF-8 name",
            ));
        };
        let dir = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Files { place: Place::Dir(dir), chosen: Some(name.to_owned()), gguf: OnceLock::new() })
    }

    /// Named parts, under the names that a model directory has (`config.json`, `model.safetensors`, ...), or one GGUF
    /// file under any name.
    ///
    /// # Errors
    /// `Argument` for a name given twice, an empty list or a name with a path in it.
    pub fn named(parts: impl IntoIterator<Item = (String, Part)>) -> Result<Files> {
        let refuse = |what| Err(Error::Argument { name: "files", what });
        let mut map = BTreeMap::new();
        for (name, part) in parts {
            if !is_inside(&name) {
                return refuse(format!("expected a plain file name, found `{}`", shown(&name)));
            }
            if map.contains_key(&name) {
                return refuse(format!("`{name}` is given twice"));
            }
            map.insert(name, part);
        }
        if map.is_empty() {
            return refuse("expected at least one file, found none".into());
        }
        let chosen = if map.len() == 1 { map.keys().next().cloned() } else { None };
        Ok(Files { place: Place::Named(map), chosen, gguf: OnceLock::new() })
    }

    /// What the model is called in messages.
    pub fn name(&self) -> String {
        match (&self.place, &self.chosen) {
            (Place::Dir(dir), Some(name)) => dir.join(name).to_string_lossy().into_owned(),
            (Place::Dir(dir), None) => dir.to_string_lossy().into_owned(),
            (Place::Named(_), Some(name)) => name.clone(),
            (Place::Named(_), None) => "memory".into(),
        }
    }

    /// How the weights are stored.
    ///
    /// # Errors
    /// `Format` where there are none, or several GGUF files to choose from.
    pub fn layout(&self) -> Result<Layout> {
        if let Some(name) = &self.chosen {
            return self.layout_of(name);
        }
        if self.has(SINGLE) {
            return Ok(Layout::Single(SINGLE.into()));
        }
        if self.has(INDEX) {
            return Ok(Layout::Sharded);
        }
        if self.has(TORCH) {
            return Ok(Layout::Archive(TORCH.into()));
        }
        let mut ggufs = self.names()?.into_iter().filter(|name| is_gguf_name(name));
        match (ggufs.next(), ggufs.next()) {
            (Some(name), None) => Ok(Layout::Gguf(name)),
            (Some(a), Some(b)) => {
                Err(bad(&self.name(), format!("found `{a}` and `{b}`: name the one to open")))
            }
            _ => {
                Err(bad(&self.name(), format!("expected `{SINGLE}`, `{INDEX}` or a .gguf file, found none")))
            }
        }
    }

    /// The layout that the chosen file `name` means, by its name or else by its first bytes.
    fn layout_of(&self, name: &str) -> Result<Layout> {
        if name == INDEX {
            return Ok(Layout::Sharded);
        }
        if is_gguf_name(name) || self.head(name)? == *b"GGUF" {
            return Ok(Layout::Gguf(name.to_owned()));
        }
        if self.head(name)?.starts_with(b"PK") {
            return Ok(Layout::Archive(name.to_owned()));
        }
        Ok(Layout::Single(name.to_owned()))
    }

    /// The GGUF file's metadata, or `None` where the model is no GGUF file.
    ///
    /// # Errors
    /// As [`gguf::parse`].
    pub fn gguf(&self) -> Result<Option<&Gguf>> {
        let Layout::Gguf(name) = self.layout()? else { return Ok(None) };
        if let Some(gguf) = self.gguf.get() {
            return Ok(Some(gguf));
        }
        let gguf = gguf::parse(self.open(&name, &mut Reading::quiet(Load::Map))?)?;
        Ok(Some(self.gguf.get_or_init(|| gguf)))
    }

    /// The model's `config.json`, or what a GGUF file has in its place.
    ///
    /// # Errors
    /// `Format` where it is missing or not an object of distinct keys.
    pub fn config(&self) -> Result<Config> {
        if let Some(gguf) = self.gguf()? {
            return Config::new(gguf.file(), gguf::to_config(gguf)?);
        }
        let text = self.small("config.json", json::MAX_BYTES)?;
        let text =
            text.ok_or_else(|| bad(&self.name(), "expected a `config.json` beside the weights, found none"))?;
        Config::parse(text.name(), text.bytes())
    }

    /// `generation_config.json`, if there is one. What lies beside a GGUF file may belong to another model.
    ///
    /// # Errors
    /// `Format` where it is not an object of distinct keys.
    pub fn generation(&self) -> Result<Option<Config>> {
        if self.gguf()?.is_some() {
            return Ok(None);
        }
        let own = self.small("generation_config.json", json::MAX_BYTES)?;
        own.map(|text| Config::parse(text.name(), text.bytes())).transpose()
    }

    /// What the model's authors suggest for generation; where they wrote nothing, the special tokens of its config.
    ///
    /// # Errors
    /// `Format` for values of the wrong type.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        GenerationConfig::read(self.generation()?.as_ref(), &self.config()?)
    }

    /// The weights, mapped or copied as `load` says, under their Hugging Face names; `progress` is told, and may cancel.
    ///
    /// # Errors
    /// `Format` and `Tensor` for files that contradict their format, themselves or their index, `Unsupported` for
    /// unknown element types, `Io`, `Memory`, `Cancelled`.
    pub fn tensors(&self, load: Load, progress: &mut Option<Progress>) -> Result<Tensors> {
        let mut reading = Reading::new(load, progress);
        match self.layout()? {
            Layout::Gguf(name) => {
                reading.expect(self.len(&name)?)?;
                gguf::tensors(&gguf::parse(self.open(&name, &mut reading)?)?)
            }
            Layout::Single(name) => {
                reading.expect(self.len(&name)?)?;
                safetensors::parse(&self.open(&name, &mut reading)?)
            }
            Layout::Sharded => safetensors::sharded(self, &mut reading),
            #[cfg(feature = "checkpoints")]
            Layout::Archive(name) => {
                reading.expect(self.len(&name)?)?;
                super::checkpoint::tensors(&self.open(&name, &mut reading)?)
            }
            #[cfg(not(feature = "checkpoints"))]
            Layout::Archive(name) => {
                let what = "an archive of PyTorch or NumPy: turn it into safetensors with `inlaid convert`";
                Err(Error::Unsupported { file: self.label(&name), what: what.to_owned() })
            }
        }
    }

    /// Whether there is a file called `name`.
    pub fn has(&self, name: &str) -> bool {
        match &self.place {
            Place::Dir(dir) => dir.join(name).is_file(),
            Place::Named(map) => map.contains_key(name),
        }
    }

    /// A small file such as `config.json`: read into private memory, or borrowed from the caller's; `None` where there is
    /// none.
    ///
    /// # Errors
    /// `Format` where it is larger than `most` bytes, `Io`.
    pub fn small(&self, name: &str, most: u64) -> Result<Option<Source>> {
        if !self.has(name) {
            return Ok(None);
        }
        let found = self.len(name)?;
        if found > most {
            return Err(bad(&self.label(name), format!("expected at most {most} bytes, found {found}")));
        }
        let borrowed = matches!(self.part(name)?, Found::Part(Part::Memory(_)));
        let load = if borrowed { Load::Map } else { Load::Copy };
        self.open(name, &mut Reading::quiet(load)).map(Some)
    }

    /// The file `name`, mapped, borrowed or copied as `reading` says.
    ///
    /// # Errors
    /// `Format` where there is none or its name is a path, `Io`, `Memory`, `Cancelled`.
    pub fn open(&self, name: &str, reading: &mut Reading) -> Result<Source> {
        let label = self.label(name);
        match self.part(name)? {
            Found::File(file) => reading.file(&label, &file, 0, None),
            Found::Part(Part::File { file, offset, len }) => reading.file(&label, file, *offset, *len),
            Found::Part(Part::Memory(memory)) => reading.memory(&label, memory),
        }
    }

    /// Bytes of the file `name`.
    ///
    /// # Errors
    /// As `open`.
    pub fn len(&self, name: &str) -> Result<u64> {
        let size = |file: &File| file.metadata().map(|meta| meta.len()).map_err(Error::io(self.label(name)));
        match self.part(name)? {
            Found::File(file) => size(&file),
            Found::Part(Part::File { len: Some(len), .. }) => Ok(*len),
            Found::Part(Part::File { file, offset, len: None }) => Ok(size(file)?.saturating_sub(*offset)),
            Found::Part(Part::Memory(memory)) => Ok((**memory).as_ref().len() as u64),
        }
    }

    /// `name` with its directory, for messages.
    pub fn label(&self, name: &str) -> String {
        match &self.place {
            Place::Dir(dir) => dir.join(name).to_string_lossy().into_owned(),
            Place::Named(_) => name.to_owned(),
        }
    }

    fn part(&self, name: &str) -> Result<Found<'_>> {
        if !is_inside(name) {
            return Err(bad(&self.name(), format!("expected a plain file name, found `{}`", shown(name))));
        }
        match &self.place {
            Place::Named(map) => {
                let part = map.get(name).ok_or_else(|| bad(&self.name(), format!("`{name}` is missing")))?;
                Ok(Found::Part(part))
            }
            Place::Dir(dir) => {
                let path = dir.join(name);
                // Asked before opening: opening a named pipe would wait for its writer.
                let meta = std::fs::metadata(&path).map_err(Error::io(&path))?;
                if !meta.is_file() {
                    return Err(bad(&path.to_string_lossy(), "expected a regular file"));
                }
                Ok(Found::File(File::open(&path).map_err(Error::io(&path))?))
            }
        }
    }

    /// The first four bytes of `name`, zeros past its end.
    fn head(&self, name: &str) -> Result<[u8; 4]> {
        let mut head = [0; 4];
        match self.part(name)? {
            Found::File(file) => {
                let mut bytes = Vec::with_capacity(head.len());
                file.take(4).read_to_end(&mut bytes).map_err(Error::io(self.label(name)))?;
                head.iter_mut().zip(bytes).for_each(|(out, byte)| *out = byte);
            }
            Found::Part(Part::Memory(memory)) => {
                head.iter_mut().zip((**memory).as_ref()).for_each(|(out, byte)| *out = *byte);
            }
            Found::Part(Part::File { file, offset, .. }) => {
                let len = self.len(name)?.min(4);
                let source = Source::read(name, file, *offset, Some(len), &mut Reading::quiet(Load::Copy))?;
                head.iter_mut().zip(source.bytes()).for_each(|(out, byte)| *out = *byte);
            }
        }
        Ok(head)
    }

    fn names(&self) -> Result<Vec<String>> {
        match &self.place {
            Place::Named(map) => Ok(map.keys().cloned().collect()),
            Place::Dir(dir) => {
                let list = std::fs::read_dir(dir).map_err(Error::io(dir))?;
                let names: Vec<String> =
                    list.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
                Ok(sorted(names, Ord::cmp))
            }
        }
    }
}

enum Found<'a> {
    File(File),
    Part(&'a Part),
}

fn is_gguf_name(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ext| ext.eq_ignore_ascii_case("gguf"))
}

/// Whether `name` is a file's own name, or that of a file in a directory within (`1_Pooling/config.json`).
fn is_inside(name: &str) -> bool {
    name.split('/').count() <= 2 && name.split('/').all(is_plain)
}

/// Whether `name` is a file's own name: no directory, drive or stream in it on any system.
pub(crate) fn is_plain(name: &str) -> bool {
    let odd = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
    !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(odd)
}
