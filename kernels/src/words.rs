//! Floor 0: memory of f32 words, zeroed, aligned to cache lines, and fallible. Knows nothing of what is kept in it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A cache line: a 512-bit load that crosses one costs two.
const ALIGN: usize = 64;

/// A zeroed run of f32 words, aligned to 64 bytes. Large ones cost no physical memory until they are touched.
pub struct Words {
    at: NonNull<f32>,
    len: usize,
}

// SAFETY: `Words` owns its memory as a `Box<[f32]>` would.
unsafe impl Send for Words {}
// SAFETY: shared access only reads, as with a `Box<[f32]>`.
unsafe impl Sync for Words {}

impl Words {
    /// `len` zeros; `None` where the system has no memory for them.
    #[must_use]
    pub fn zeroed(len: usize) -> Option<Words> {
        let layout = Words::layout(len)?;
        if len == 0 {
            return Some(Words::default());
        }
        // SAFETY: the layout is not empty (`len` is not 0).
        let at = unsafe { alloc_zeroed(layout) };
        Some(Words { at: NonNull::new(at.cast())?, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len.checked_mul(4)?, ALIGN).ok()
    }

    pub(crate) fn as_ptr(&self) -> *mut f32 {
        self.at.as_ptr()
    }
}

impl Default for Words {
    fn default() -> Words {
        Words { at: NonNull::dangling(), len: 0 }
    }
}

impl Deref for Words {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised words, or none at a dangling aligned pointer.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Words {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above; `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        if let (true, Some(layout)) = (self.len > 0, Words::layout(self.len)) {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.at.as_ptr().cast(), layout) }
        }
    }
}
