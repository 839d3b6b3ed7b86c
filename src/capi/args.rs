//! Floor 6: pointers of the caller become slices and text, checked, and results go into the caller's buffers.

use super::error::{argument, null};
use crate::error::{Error, Result};
use crate::utf8;
use std::ffi::{CStr, c_char};
use std::mem::size_of;

/// The caller's `n` values; NULL is fine where there are none.
///
/// # Safety
/// `from` is NULL or points to `n` values that nobody writes until the call ends.
pub(super) unsafe fn slice<'a, T>(name: &'static str, from: *const T, n: usize) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    if from.is_null() {
        return Err(null(name));
    }
    if !from.is_aligned() || n.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(argument(name, format!("expected an aligned array, found {n} elements at {from:p}")));
    }
    // SAFETY: not NULL, aligned and not larger than memory; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(from, n) })
}

/// The caller's text.
///
/// # Safety
/// As [`slice()`].
pub(super) unsafe fn text<'a>(name: &'static str, from: *const c_char, len: usize) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    utf8::checked(name, unsafe { slice(name, from.cast::<u8>(), len) }?)
}

/// The caller's NUL-terminated text.
///
/// # Safety
/// `from` is NULL or points to bytes up to a NUL that nobody writes until the call ends.
pub(super) unsafe fn string<'a>(name: &'static str, from: *const c_char) -> Result<&'a str> {
    if from.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    utf8::checked(name, unsafe { CStr::from_ptr(from) }.to_bytes())
}

/// Refuses an output pointer that cannot be written.
pub(super) fn writable<T>(name: &'static str, out: *mut T) -> Result<()> {
    if out.is_null() {
        return Err(null(name));
    }
    if !out.is_aligned() {
        return Err(argument(name, "expected an aligned pointer"));
    }
    Ok(())
}

/// Writes one value that must have a place.
///
/// # Safety
/// `out` is NULL or may be written.
pub(super) unsafe fn set<T>(name: &'static str, out: *mut T, value: T) -> Result<()> {
    writable(name, out)?;
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    unsafe { out.write(value) };
    Ok(())
}

/// Writes one value where the caller wants it.
///
/// # Safety
/// `out` is NULL or may be written.
pub(super) unsafe fn maybe_set<T>(name: &'static str, out: *mut T, value: T) -> Result<()> {
    // SAFETY: the caller's promise.
    if out.is_null() { Ok(()) } else { unsafe { set(name, out, value) } }
}

/// Refuses a buffer of `capacity` values that cannot take `needed`.
pub(super) fn room<T>(name: &'static str, out: *mut T, capacity: usize, needed: usize) -> Result<()> {
    if needed > capacity {
        return Err(Error::Buffer { name, needed, capacity });
    }
    if needed > 0 { writable(name, out) } else { Ok(()) }
}

/// Writes `values` and their number. With no buffer (NULL and no capacity) only the number is written.
///
/// # Safety
/// `out` is NULL or has room for `capacity` values; `n` is NULL or may be written.
pub(super) unsafe fn fill<T: Copy>(
    name: &'static str,
    values: &[T],
    out: *mut T,
    capacity: usize,
    n: *mut usize,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { set("n", n, values.len()) }?;
    if out.is_null() && capacity == 0 {
        return Ok(());
    }
    room(name, out, capacity, values.len())?;
    // SAFETY: there is room, and the caller's buffer is not ours.
    unsafe { out.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
    Ok(())
}

/// Writes a text, closed with a NUL, and its length without the NUL. With no buffer (NULL and no capacity) only the length
/// is written.
///
/// # Safety
/// As [`fill`].
pub(super) unsafe fn fill_text(
    name: &'static str,
    text: &str,
    out: *mut c_char,
    capacity: usize,
    len: *mut usize,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { set("len", len, text.len()) }?;
    if out.is_null() && capacity == 0 {
        return Ok(());
    }
    room(name, out, capacity, text.len() + 1)?;
    // SAFETY: there is room, and the caller's buffer is not ours.
    unsafe {
        out.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        out.add(text.len()).write(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr::{null, null_mut};

    #[test]
    fn arrays_are_checked() {
        let ids = [1u32, 2, 3];
        // SAFETY: valid arrays, or such that are refused before they are read.
        unsafe {
            assert_eq!(slice("ids", ids.as_ptr(), 3).unwrap(), ids);
            assert!(slice::<u32>("ids", null(), 0).unwrap().is_empty());
            assert!(matches!(slice::<u32>("ids", null(), 1), Err(Error::Argument { name: "ids", .. })));
            assert!(slice("ids", ids.as_ptr().byte_add(1), 1).is_err());
            assert!(slice("ids", ids.as_ptr(), usize::MAX / 2).is_err());
        }
    }

    #[test]
    fn text_names_the_offset_of_a_bad_byte() {
        let bytes = b"caf\xc3\xa9 \xff";
        // SAFETY: a valid array.
        let e = unsafe { text("text", bytes.as_ptr().cast(), bytes.len()) }.unwrap_err();
        assert_eq!(e.to_string(), "text: expected UTF-8, found byte 0xff at offset 6");
    }

    #[test]
    fn a_text_needs_room_for_its_nul() {
        let (mut out, mut len) = ([0x55u8; 4], 0usize);
        let mut run = |capacity| {
            // SAFETY: four bytes of room, `capacity` is not more.
            let done = unsafe { fill_text("out", "abc", out.as_mut_ptr().cast(), capacity, &raw mut len) };
            (done, len, out)
        };
        assert!(matches!(run(3), (Err(Error::Buffer { needed: 4, capacity: 3, .. }), 3, [0x55, ..])));
        assert!(matches!(run(4), (Ok(()), 3, [b'a', b'b', b'c', 0])));
        let mut len = 0;
        // SAFETY: nothing is written but the length.
        unsafe { fill_text("out", "abc", null_mut(), 0, &raw mut len) }.unwrap();
        assert_eq!(len, 3);
        // SAFETY: refused.
        assert!(unsafe { fill_text("out", "abc", null_mut(), 0, null_mut()) }.is_err());
        // SAFETY: refused: room that is not there.
        assert!(unsafe { fill_text("out", "abc", null_mut(), 9, &raw mut len) }.is_err());
    }
}
