//! Floor 6: structs that grow: a caller may have been compiled against an older or a newer header than this library.

use super::error::{argument, null};
use crate::error::Result;
use std::mem::{MaybeUninit, size_of};

/// No struct of ours comes near; a larger size is a struct that was not initialised.
const MOST: usize = 4096;

/// A struct of the header that starts with `uint32_t struct_size`.
///
/// # Safety
/// `repr(C)`, starts with a `u32` that holds its size, has no padding between or after its fields, and zero bytes are a
/// valid value of every field.
pub(super) unsafe trait Versioned: Copy {
    /// The argument's name in messages.
    const NAME: &'static str;
    /// Sizes of all versions so far, the current one last.
    const SIZES: &'static [usize];

    /// The value that `NULL` stands for, with the current size.
    fn defaults() -> Self;
}

/// Whether a caller's size is that of a version we know or a later one.
fn known<T: Versioned>(size: usize) -> Result<()> {
    let now = size_of::<T>();
    if T::SIZES.contains(&size) || (size > now && size <= MOST) {
        return Ok(());
    }
    Err(argument(T::NAME, format!("struct_size: expected {now}, found {size}; was the struct initialised?")))
}

/// The struct that the caller passed: defaults for `NULL`, and for fields that an older caller does not have. A field that
/// only a newer library knows must be zero.
///
/// # Safety
/// `from` is NULL or points to as many bytes as its `struct_size` says.
pub(super) unsafe fn read<T: Versioned>(from: *const T) -> Result<T> {
    let mut out = T::defaults();
    if from.is_null() {
        return Ok(out);
    }
    if !from.is_aligned() {
        return Err(argument(T::NAME, "expected an aligned pointer"));
    }
    // SAFETY: not NULL, aligned, and it has at least the first field.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    known::<T>(size)?;
    let shared = size.min(size_of::<T>());
    // SAFETY: both have `shared` bytes; a prefix of whole fields of a caller's struct is a valid prefix of ours.
    unsafe {
        (&raw mut out).cast::<u8>().copy_from_nonoverlapping(from.cast(), shared);
        (&raw mut out).cast::<u32>().write(size_of::<T>() as u32);
        let tail = std::slice::from_raw_parts(from.cast::<u8>().add(shared), size - shared);
        if let Some(at) = tail.iter().position(|byte| *byte != 0) {
            let what = format!("a field at offset {} that this library does not know is set", shared + at);
            return Err(argument(T::NAME, what));
        }
    }
    Ok(out)
}

/// Fills the caller's struct of `size` bytes with defaults.
///
/// # Safety
/// `out` is NULL or points to `size` bytes.
pub(super) unsafe fn init<T: Versioned>(out: *mut T, size: usize) -> Result<()> {
    check_out(out)?;
    known::<T>(size)?;
    // SAFETY: the caller's promise.
    unsafe { put(out, T::defaults(), size) };
    Ok(())
}

/// Fills the caller's struct, whose `struct_size` says how much of it there is, with `value`. Fields that only a newer
/// library knows become zero.
///
/// # Safety
/// `out` is NULL or points to as many bytes as its `struct_size` says.
pub(super) unsafe fn write<T: Versioned>(out: *mut T, value: T) -> Result<()> {
    check_out(out)?;
    // SAFETY: not NULL, aligned, and it has at least the first field.
    let size = unsafe { out.cast::<u32>().read() } as usize;
    known::<T>(size)?;
    // SAFETY: the caller's promise.
    unsafe { put(out, value, size) };
    Ok(())
}

fn check_out<T: Versioned>(out: *mut T) -> Result<()> {
    if out.is_null() {
        return Err(null(T::NAME));
    }
    if !out.is_aligned() {
        return Err(argument(T::NAME, "expected an aligned pointer"));
    }
    Ok(())
}

/// # Safety
/// `out` is aligned and points to `size` bytes.
unsafe fn put<T: Versioned>(out: *mut T, value: T, size: usize) {
    let shared = size.min(size_of::<T>());
    let value = MaybeUninit::new(value);
    // SAFETY: both have `shared` bytes, and `out` has `size`.
    unsafe {
        out.cast::<u8>().copy_from_nonoverlapping(value.as_ptr().cast(), shared);
        out.cast::<u8>().add(shared).write_bytes(0, size - shared);
        out.cast::<u32>().write(size as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    /// A struct that grew once: `c` and `d` came later.
    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Grown {
        struct_size: u32,
        a: u32,
        c: u32,
        d: u32,
    }

    // SAFETY: four u32 fields, the first of them the size.
    unsafe impl Versioned for Grown {
        const NAME: &'static str = "grown";
        const SIZES: &'static [usize] = &[8, 16];

        fn defaults() -> Grown {
            Grown { struct_size: 16, a: 1, c: 3, d: 4 }
        }
    }

    fn read_words(words: &[u32]) -> Result<Grown> {
        // SAFETY: the tests give as many words as the first one says in bytes, or a size that is refused.
        unsafe { read(words.as_ptr().cast::<Grown>()) }
    }

    #[test]
    fn an_older_caller_gets_defaults_for_what_it_does_not_know() {
        assert_eq!(read_words(&[8, 7]).unwrap(), Grown { struct_size: 16, a: 7, c: 3, d: 4 });
    }

    #[test]
    fn a_newer_caller_may_leave_new_fields_zero() {
        assert_eq!(read_words(&[24, 7, 8, 9, 0, 0]).unwrap(), Grown { struct_size: 16, a: 7, c: 8, d: 9 });
        let e = read_words(&[24, 7, 8, 9, 0, 1 << 8]).unwrap_err();
        assert!(matches!(&e, Error::Argument { name: "grown", what } if what.contains("offset 21")), "{e}");
    }

    #[test]
    fn sizes_that_no_version_had_are_refused() {
        for size in [0, 4, 7, 12, 15, 4097, u32::MAX] {
            assert!(matches!(read_words(&[size, 7, 8, 9]), Err(Error::Argument { .. })), "{size}");
        }
    }

    #[test]
    fn writing_stays_within_the_callers_struct() {
        let value = Grown { struct_size: 16, a: 7, c: 8, d: 9 };
        for (size, expected) in
            [(8, [8, 7, 5, 5, 5, 5]), (16, [16, 7, 8, 9, 5, 5]), (24, [24, 7, 8, 9, 0, 0])]
        {
            let mut words = [5u32; 6];
            words[0] = size;
            // SAFETY: six words, of which `size` bytes may be written.
            unsafe { write(words.as_mut_ptr().cast::<Grown>(), value) }.unwrap();
            assert_eq!(words, expected);
        }
        let mut words = [5u32; 6];
        // SAFETY: as above.
        unsafe { init(words.as_mut_ptr().cast::<Grown>(), 24) }.unwrap();
        assert_eq!(words, [24, 1, 3, 4, 0, 0]);
        // SAFETY: refused before anything is read or written.
        assert!(unsafe { init(words.as_mut_ptr().cast::<Grown>(), 12) }.is_err());
        // SAFETY: NULL is refused.
        assert!(unsafe { init(std::ptr::null_mut::<Grown>(), 16) }.is_err());
    }
}
