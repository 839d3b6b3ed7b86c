//! Floor 3: bytes that stay valid: a mapped file, the caller's memory or a private copy. Knows no format.
//!
//! A mapped file that somebody truncates while it is mapped raises SIGBUS (Unix) or an access violation (Windows) at the
//! next read, which no library can turn into an error. Who cannot exclude that asks for a copy ([`Load::Copy`]), which is
//! made with ordinary reads.

use super::bad;
use crate::error::{Error, Result};
use memmap2::{Mmap, MmapMut, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Memory that belongs to the caller and outlives every use.
pub type Memory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Told (bytes done, bytes in all); `Break` cancels the load.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Bytes between two calls of the progress callback: some milliseconds of reading.
const PIECE: usize = 4 << 20;

/// Bytes that stay valid and do not move while any clone of this lives.
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    bytes: Bytes,
}

#[derive(Clone)]
enum Bytes {
    Mapped(Arc<Mmap>),
    Shared(Memory),
    Private(Memory),
    Anonymous(Arc<Mmap>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.bytes {
            Bytes::Mapped(_) => "mapped",
            Bytes::Shared(_) => "shared",
            Bytes::Private(_) | Bytes::Anonymous(_) => "private",
        };
        write!(f, "Source({}, {kind}, {} bytes)", self.name, self.bytes().len())
    }
}

impl Source {
    /// The caller's memory, called `name` in messages.
    pub fn memory(name: &str, memory: Memory) -> Source {
        Source { name: name.into(), bytes: Bytes::Shared(memory) }
    }

    /// A private buffer, called `name` in messages.
    pub fn private(name: &str, bytes: Vec<u8>) -> Source {
        Source { name: name.into(), bytes: Bytes::Private(Arc::new(bytes)) }
    }

    /// The file's name for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) | Bytes::Anonymous(map) => map,
            Bytes::Shared(memory) | Bytes::Private(memory) => (**memory).as_ref(),
        }
    }

    /// Bytes of memory that only this holds (a copy), as against the page cache's or the caller's.
    pub fn private_bytes(&self) -> usize {
        match &self.bytes {
            Bytes::Private(memory) => (**memory).as_ref().len(),
            Bytes::Anonymous(map) => map.len(),
            Bytes::Mapped(_) | Bytes::Shared(_) => 0,
        }
    }

    /// `map`, memory that belongs to no file, called `name` in messages.
    pub fn anonymous(name: &str, map: Mmap) -> Source {
        Source { name: name.into(), bytes: Bytes::Anonymous(Arc::new(map)) }
    }

    /// Gives back the memory of bytes that nobody will read soon: a mapped file's are read again when they are needed.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes
            && range.end <= map.len()
        {
            // SAFETY: a read-only map of a file: what is dropped here is read from the file again.
            #[allow(unsafe_code)]
            let dropped = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            // It only saves memory.
            drop(dropped);
        }
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Whether the bytes are memory that belongs to no file.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.bytes, Bytes::Anonymous(_))
    }

    /// Whether the bytes are a mapped file's.
    pub fn is_mapped(&self) -> bool {
        matches!(self.bytes, Bytes::Mapped(_))
    }

    /// Maps `len` bytes of `file` from `offset` on; to the end where `len` is `None`.
    ///
    /// # Errors
    /// `Format` where the file is shorter, `Io` where it cannot be mapped (a pipe, some network file systems).
    pub fn map(name: &str, file: &File, offset: u64, len: Option<u64>) -> Result<Source> {
        let len = extent(name, file, offset, len)?;
        if len == 0 {
            return Ok(Source::private(name, Vec::new()));
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        // SAFETY: the map is private to this value, read-only and within the file's length as checked above. That nobody
        // truncates or writes the file meanwhile is the caller's promise, stated in this file's head and in the C header.
        #[allow(unsafe_code)]
        let map = unsafe { options.map(file) }.map_err(Error::io(name))?;
        #[cfg(target_os = "linux")]
        {
            // Every token reads all weights, and where small pages end so does what a processor reads ahead. A file that is
            // in the page cache already stays there as it is, and not every file system can: it only saves time.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Source { name: name.into(), bytes: Bytes::Mapped(Arc::new(map)) })
    }

    /// Reads `len` bytes of `file` from `offset` on into private memory, telling `reading`.
    ///
    /// # Errors
    /// `Format` where the file is shorter, `Memory` where there is not enough, `Cancelled`, `Io`.
    pub fn read(
        name: &str,
        file: &File,
        offset: u64,
        len: Option<u64>,
        reading: &mut Reading,
    ) -> Result<Source> {
        let len = extent(name, file, offset, len)?;
        Source::copied(name, len, |at, piece| {
            read_exact_at(file, piece, offset + at as u64).map_err(Error::io(name))?;
            reading.advance(piece.len() as u64)
        })
    }

    /// A private copy of these bytes.
    fn copy(&self, reading: &mut Reading) -> Result<Source> {
        let bytes = self.bytes();
        Source::copied(&self.name, bytes.len(), |at, piece| {
            piece.copy_from_slice(&bytes[at..][..piece.len()]);
            reading.advance(piece.len() as u64)
        })
    }

    /// A private copy of `len` bytes, which `fill` is told the place of and writes piece by piece.
    fn copied(
        name: &str,
        len: usize,
        mut fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<Source> {
        if len == 0 {
            return Ok(Source::private(name, Vec::new()));
        }
        let mut copy = zeroed("a copy of a model file", len)?;
        for (i, piece) in copy.chunks_mut(PIECE).enumerate() {
            fill(i * PIECE, piece)?;
        }
        let copy = copy.make_read_only().map_err(Error::io(name))?;
        Ok(Source { name: name.into(), bytes: Bytes::Private(Arc::new(copy)) })
    }
}

/// `bytes` bytes of zeroed memory for `what` (at least one), in huge pages where the system has them.
///
/// # Errors
/// `Memory`.
pub(crate) fn zeroed(what: &'static str, bytes: usize) -> Result<MmapMut> {
    let refused = |_| Error::Memory { what, bytes: bytes as u64 };
    let memory = MmapMut::map_anon(bytes.max(1)).map_err(refused)?;
    #[cfg(target_os = "linux")]
    {
        // It only saves time.
        let _ = memory.advise(memmap2::Advice::HugePage);
    }
    Ok(memory)
}

/// The checked length of the part of `file` that starts at `offset`.
fn extent(name: &str, file: &File, offset: u64, len: Option<u64>) -> Result<usize> {
    let meta = file.metadata().map_err(Error::io(name))?;
    if !meta.is_file() {
        return Err(bad(name, "expected a regular file"));
    }
    let held = meta.len();
    let len = len.unwrap_or_else(|| held.saturating_sub(offset));
    if offset.checked_add(len).is_none_or(|end| end > held) {
        return Err(bad(name, format!("expected {len} bytes from byte {offset} on, the file has {held}")));
    }
    usize::try_from(len)
        .map_err(|_| bad(name, format!("{len} bytes do not fit in this machine's address space")))
}

/// Fills `out` from `offset` on without moving a position that others share.
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !out.is_empty() {
        match read_at(file, out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                out = out.get_mut(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, out, offset)
}

#[cfg(windows)]
fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, out, offset)
}

#[cfg(not(any(unix, windows)))]
fn read_at(mut file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read(out)
}

/// How weights come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Load {
    /// Files are mapped and the caller's memory is borrowed: nothing is copied.
    #[default]
    Map,
    /// Everything is copied into private memory: files may then change or vanish.
    Copy,
}

/// A load on its way: how, and who is told about it.
#[derive(Default)]
pub struct Reading<'a> {
    load: Load,
    tell: Option<Progress<'a>>,
    done: u64,
    total: u64,
}

impl<'a> Reading<'a> {
    /// Reads as `load` says and tells `progress`, if there is one.
    pub fn new(load: Load, progress: &'a mut Option<Progress>) -> Reading<'a> {
        let tell = progress.as_mut().map(|tell| &mut **tell as Progress<'a>);
        Reading { load, tell, done: 0, total: 0 }
    }

    /// Reads as `load` says and tells nobody.
    pub fn quiet(load: Load) -> Reading<'static> {
        Reading { load, ..Reading::default() }
    }

    /// Says how many bytes the whole load has.
    ///
    /// # Errors
    /// `Cancelled` where the callback says so.
    pub fn expect(&mut self, total: u64) -> Result<()> {
        (self.done, self.total) = (0, total);
        self.advance(0)
    }

    /// Counts `bytes` as done.
    ///
    /// # Errors
    /// `Cancelled` where the callback says so.
    pub(crate) fn advance(&mut self, bytes: u64) -> Result<()> {
        self.done += bytes;
        let (done, total) = (self.done, self.total.max(self.done));
        match self.tell.as_mut().map(|tell| tell(done, total)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// A file's part, mapped or read.
    pub(crate) fn file(&mut self, name: &str, file: &File, offset: u64, len: Option<u64>) -> Result<Source> {
        if self.load == Load::Copy {
            return Source::read(name, file, offset, len, self);
        }
        let source = Source::map(name, file, offset, len)?;
        self.advance(source.bytes().len() as u64)?;
        Ok(source)
    }

    /// The caller's memory, borrowed or copied.
    pub(crate) fn memory(&mut self, name: &str, memory: &Memory) -> Result<Source> {
        let source = Source::memory(name, memory.clone());
        if self.load == Load::Copy {
            return source.copy(self);
        }
        self.advance(source.bytes().len() as u64)?;
        Ok(source)
    }
}
