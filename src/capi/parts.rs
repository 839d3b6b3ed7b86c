//! Floor 6: a model's files by name, from the caller's memory or open descriptors.

use super::args::{slice, string};
use super::engine::User;
use super::error::argument;
use crate::error::{Error, Result};
use crate::format::files::{Files, Part};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Told that the library no longer needs the memory of a part. Called once, on the thread that drops the last use (a free
/// of the model or of one of its sessions, or the open call itself with `copy`). It must return normally.
pub type inlaid_release_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// One file of a model that does not come from a path: bytes in the caller's memory, or a range of an open file.
///
/// Names are those of a model directory: `config.json`, `model.safetensors`, `tokenizer.json`, ...; a single GGUF file may
/// have any name. Clear the struct (`= {0}`, `memset`), set `struct_size`, then the fields you need; all elements of an
/// array have the same size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_part {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Where `data` is NULL: an open, regular file. The library duplicates the descriptor, and neither uses nor moves its
    /// position; the caller may close it after the call. (Unix; elsewhere `INLAID_ERROR_UNSUPPORTED`.)
    pub fd: i32,
    /// The file's name. UTF-8, NUL-terminated; copied.
    pub name: *const c_char,
    /// The bytes, or NULL for a file descriptor. They are used in place: they must stay valid and unchanged until the
    /// model and all its sessions are gone, or (with `copy`) until the call returns.
    pub data: *const c_void,
    /// Of a file: its first byte, for models inside a larger file.
    pub offset: u64,
    /// Bytes of `data`. Of a file: bytes from `offset` on, 0 for all that follow.
    pub len: u64,
    /// Told when `data` is no longer needed; may be NULL. After a call that fails, nothing is told and the bytes are the
    /// caller's again.
    pub release: inlaid_release_fn,
    /// The argument of `release`.
    pub release_user: *mut c_void,
}

/// Bytes of the caller.
struct Lent {
    at: *const u8,
    len: usize,
    release: inlaid_release_fn,
    user: User,
    /// Set once the model is open: from then on the caller waits to be told.
    taken: Arc<AtomicBool>,
}

// SAFETY: the bytes are only read; the header makes the caller keep them unchanged, and says that `release` may be called
// on any thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `part` checked that the pointer is not NULL and the length not larger than memory; the header makes
        // the caller keep the bytes valid and unchanged.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(release), true) = (self.release, self.taken.load(Relaxed)) {
            // SAFETY: the caller's function, with the argument that the header promises it.
            unsafe { release(self.user.0) };
        }
    }
}

/// The files of an array of parts, and the flag that says that the model took them.
///
/// # Safety
/// `parts` is NULL or points to `n` parts, each with valid fields.
pub(super) unsafe fn files(parts: *const inlaid_part, n: usize) -> Result<(Files, Arc<AtomicBool>)> {
    let taken = Arc::new(AtomicBool::new(false));
    let mut named = Vec::new();
    // SAFETY: the caller's promise. There is one version of the struct, so an array of it has this stride.
    for part in unsafe { slice("parts", parts, n) }? {
        if part.struct_size as usize != size_of::<inlaid_part>() {
            let (expected, found) = (size_of::<inlaid_part>(), part.struct_size);
            return Err(argument("parts", format!("struct_size: expected {expected}, found {found}")));
        }
        // SAFETY: the caller's promise.
        let name = unsafe { string("name", part.name) }?.to_owned();
        // SAFETY: the caller's promise.
        named.push((name, unsafe { convert(part, &taken) }?));
    }
    Ok((Files::named(named)?, taken))
}

/// # Safety
/// As [`files`], for one part.
unsafe fn convert(part: &inlaid_part, taken: &Arc<AtomicBool>) -> Result<Part> {
    if part.data.is_null() {
        return file(part);
    }
    if part.offset != 0 {
        return Err(argument("offset", format!("expected 0 with data, found {}", part.offset)));
    }
    let len = usize::try_from(part.len).ok().filter(|len| *len <= isize::MAX as usize);
    let len = len.ok_or_else(|| argument("len", format!("expected bytes in memory, found {}", part.len)))?;
    let (at, user) = (part.data.cast(), User(part.release_user));
    Ok(Part::Memory(Arc::new(Lent { at, len, release: part.release, user, taken: taken.clone() })))
}

#[cfg(unix)]
fn file(part: &inlaid_part) -> Result<Part> {
    use std::os::fd::BorrowedFd;
    if part.fd < 0 {
        return Err(argument(
            "parts",
            format!("expected data or an open file, found descriptor {}", part.fd),
        ));
    }
    // SAFETY: not -1. The descriptor is the caller's and open during this call; of one that is not, the system tells.
    let fd = unsafe { BorrowedFd::borrow_raw(part.fd) };
    let own = fd.try_clone_to_owned().map_err(Error::io(format!("descriptor {}", part.fd)))?;
    let len = (part.len > 0).then_some(part.len);
    Ok(Part::File { file: own.into(), offset: part.offset, len })
}

#[cfg(not(unix))]
fn file(_: &inlaid_part) -> Result<Part> {
    Err(Error::Unsupported { file: "parts".to_owned(), what: "a file descriptor on this system".to_owned() })
}
