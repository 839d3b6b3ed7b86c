//! Floor 6: the caller-owned record of how a call went. Knows no handles.

use super::status::{INLAID_OK, status};
use crate::error::{Error, Result};
use std::ffi::c_char;
use std::fmt::Write;
use std::mem::{offset_of, size_of};

/// Bytes of a message, the closing NUL included.
const MESSAGE: usize = size_of::<inlaid_error>() - offset_of!(inlaid_error, message);

/// How a call went, in words. Owned by the caller, usually on its stack; every function takes a pointer to one, or NULL
/// where the status is enough. Each call overwrites it, a success with `INLAID_OK` and an empty message.
///
/// Initialise it once with `inlaid_error_init`, or by setting `struct_size = sizeof(inlaid_error)`.
#[repr(C)]
pub struct inlaid_error {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// What the call returned.
    pub status: i32,
    /// UTF-8, NUL-terminated, empty after a success. It names the file, tensor or argument, what was expected and what
    /// was found; a longer message is cut, never within a character.
    pub message: [c_char; 504],
}

/// Initialises an error record. `struct_size` is `sizeof(inlaid_error)`. Does nothing where `err` is NULL or the size too
/// small to hold a status. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_error_init(err: *mut inlaid_error, struct_size: usize) {
    if err.is_null() || struct_size < offset_of!(inlaid_error, message) || !err.is_aligned() {
        return;
    }
    let size = struct_size.min(size_of::<inlaid_error>());
    // SAFETY: `err` is aligned and the caller says that it has `struct_size` bytes, of which the first `size` are written.
    unsafe {
        err.cast::<u8>().write_bytes(0, size);
        (&raw mut (*err).struct_size).write(size as u32);
    }
}

/// Writes the outcome of a call to `err`, where there is one, and returns its status. Allocates nothing: it must work when
/// memory is short.
///
/// # Safety
/// `err` is NULL or points to as many bytes as its `struct_size` says.
pub(super) unsafe fn report(err: *mut inlaid_error, done: &Result<()>) -> i32 {
    let code = done.as_ref().map_or_else(status, |()| INLAID_OK);
    if err.is_null() || !err.is_aligned() {
        return code;
    }
    // SAFETY: not NULL and aligned; a caller's record has at least this field.
    let size = unsafe { (&raw const (*err).struct_size).read() } as usize;
    let room = size.min(size_of::<inlaid_error>()).saturating_sub(offset_of!(inlaid_error, message));
    if size < offset_of!(inlaid_error, message) {
        return code;
    }
    let mut text = Cut { bytes: [0; MESSAGE], len: 0, most: room.saturating_sub(1) };
    if let Err(e) = done {
        // A message that does not fit is cut: the only error that `Cut` knows.
        let _ = write!(text, "{e}");
    }
    // SAFETY: the record has `size` bytes, so a status and `room` bytes of message, of which `len + 1 <= room` are written.
    unsafe {
        (&raw mut (*err).status).write(code);
        let message = (&raw mut (*err).message).cast::<u8>();
        message.copy_from_nonoverlapping(text.bytes.as_ptr(), if room == 0 { 0 } else { text.len + 1 });
    }
    code
}

/// Text in a fixed buffer, cut between characters.
struct Cut {
    bytes: [u8; MESSAGE],
    len: usize,
    /// Bytes of text that fit, without the NUL.
    most: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let fits = text.floor_char_boundary(self.most - self.len);
        let (start, end) = (self.len, self.len + fits);
        if let (Some(out), Some(bytes)) = (self.bytes.get_mut(start..end), text.as_bytes().get(..fits)) {
            out.copy_from_slice(bytes);
            self.len = end;
        }
        if fits < text.len() {
            self.most = self.len;
            return Err(std::fmt::Error);
        }
        Ok(())
    }
}

/// The error about an argument.
pub(super) fn argument(name: &'static str, what: impl Into<String>) -> Error {
    Error::Argument { name, what: what.into() }
}

/// The error about a pointer that may not be NULL.
pub(super) fn null(name: &'static str) -> Error {
    argument(name, "expected a pointer, found NULL")
}

#[cfg(test)]
mod tests {
    use super::super::status::{INLAID_ERROR_ARGUMENT, INLAID_ERROR_TOKENIZER};
    use super::*;
    use std::ffi::CStr;

    fn fresh(struct_size: u32) -> inlaid_error {
        inlaid_error { struct_size, status: 77, message: [0x55; MESSAGE] }
    }

    fn message(err: &inlaid_error) -> &str {
        // SAFETY: `report` closed the text with a NUL within the array.
        unsafe { CStr::from_ptr(err.message.as_ptr()) }.to_str().unwrap()
    }

    #[test]
    fn a_message_is_cut_between_characters_and_closed() {
        for pad in 0..4 {
            let long = format!("{}{}", "x".repeat(pad), "é€😀".repeat(100));
            let mut err = fresh(512);
            // SAFETY: `err` has 512 bytes.
            let code = unsafe { report(&raw mut err, &Err(Error::Tokenizer(long.clone()))) };
            assert_eq!((code, err.status), (INLAID_ERROR_TOKENIZER, INLAID_ERROR_TOKENIZER));
            let text = message(&err);
            let whole = format!("tokenizer: {long}");
            assert!(whole.starts_with(text));
            let next = whole[text.len()..].chars().next().unwrap();
            assert!(text.len() < MESSAGE && text.len() + next.len_utf8() >= MESSAGE, "{}", text.len());
        }
    }

    #[test]
    fn an_older_and_a_newer_record_are_written_within_their_bounds() {
        for (size, text) in [(512u32, "n: wrong"), (4096, "n: wrong"), (12, "n: "), (9, "")] {
            let mut err = fresh(size);
            // SAFETY: `err` has 512 bytes; of a larger size only the known part is written.
            unsafe { report(&raw mut err, &Err(argument("n", "wrong"))) };
            assert_eq!((err.struct_size, err.status, message(&err)), (size, INLAID_ERROR_ARGUMENT, text));
            assert_eq!(err.message[text.len() + 1], 0x55, "nothing behind the NUL is touched");
        }
        let mut tiny = fresh(4);
        // SAFETY: as above.
        unsafe { report(&raw mut tiny, &Err(argument("n", "wrong"))) };
        assert_eq!(tiny.status, 77);
    }

    #[test]
    fn a_success_clears_the_record() {
        let mut err = fresh(512);
        // SAFETY: `err` has 512 bytes.
        unsafe { report(&raw mut err, &Ok(())) };
        assert_eq!((err.status, message(&err)), (INLAID_OK, ""));
    }
}
