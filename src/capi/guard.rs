//! Floor 6: what every call passes on its way in and out: NULL and poison checks, a reference held while the call runs,
//! and the place where panics stop.

use super::error::{inlaid_error, null, report};
use super::silence::Silence;
use crate::error::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A type behind an opaque, counted pointer.
pub(super) trait Handle: Send + Sync {
    /// The argument's name in messages.
    const NAME: &'static str;

    /// Set after a panic within a call.
    fn poisoned(&self) -> &AtomicBool;
}

/// Runs a call that needs no handle.
///
/// # Safety
/// As [`report`].
pub(super) unsafe fn guard(err: *mut inlaid_error, call: impl FnOnce() -> Result<()>) -> i32 {
    let done = caught(&mut once(call)).unwrap_or_else(|reason| Err(Error::Internal(reason)));
    // SAFETY: the caller's promise.
    unsafe { report(err, &done) }
}

/// Runs a call on a handle, which lives at least until the call ends: another thread, or a callback, may free it.
/// After a panic the handle is poisoned.
///
/// # Safety
/// As [`report`]; `handle` is NULL or a pointer that [`give`] made and that was not freed for the last time.
pub(super) unsafe fn with<H: Handle>(
    handle: *const H,
    err: *mut inlaid_error,
    call: impl FnOnce(&H) -> Result<()>,
) -> i32 {
    let call = || {
        // SAFETY: the caller's promise.
        let handle = unsafe { hold(handle) }?;
        unless_poisoned(handle.poisoned(), &mut once(|| call(&handle)))
    };
    // SAFETY: the caller's promise.
    unsafe { guard(err, call) }
}

/// Runs a call on the handle whose mark this is.
fn unless_poisoned(mark: &AtomicBool, call: &mut Call) -> Result<()> {
    if mark.load(Relaxed) {
        return Err(Error::Poisoned);
    }
    caught(call).unwrap_or_else(|reason| {
        mark.store(true, Relaxed);
        Err(Error::Internal(reason))
    })
}

/// What is behind every export, compiled once: a call that runs once.
type Call<'a> = dyn FnMut() -> Result<()> + 'a;

fn once(call: impl FnOnce() -> Result<()>) -> impl FnMut() -> Result<()> {
    let mut call = Some(call);
    move || call.take().map_or(Ok(()), |call| call())
}

/// Runs a call that has no status to return.
pub(super) fn quiet(call: impl FnOnce()) {
    // A panic while something is freed: the handle is gone, and nobody is there to be told.
    let _ = caught(&mut once(|| {
        call();
        Ok(())
    }));
}

/// Hands a value to the caller, who owns one reference.
///
/// # Safety
/// `out` is not NULL and may be written.
pub(super) unsafe fn give<H: Handle>(out: *mut *mut H, value: H) {
    // SAFETY: the caller's promise.
    unsafe { out.write(Arc::into_raw(Arc::new(value)).cast_mut()) };
}

/// Another reference to a handle.
///
/// # Safety
/// As [`with`].
pub(super) unsafe fn hold<H: Handle>(handle: *const H) -> Result<Arc<H>> {
    if handle.is_null() {
        return Err(null(H::NAME));
    }
    // SAFETY: a live handle is the pointer of an `Arc` that counts at least one.
    unsafe {
        Arc::increment_strong_count(handle);
        Ok(Arc::from_raw(handle))
    }
}

/// Counts one more reference that the caller owns.
///
/// # Safety
/// As [`with`].
pub(super) unsafe fn retain<H: Handle>(handle: *const H) {
    if !handle.is_null() {
        // SAFETY: a live handle is the pointer of an `Arc` that counts at least one.
        unsafe { Arc::increment_strong_count(handle) };
    }
}

/// Gives back one reference that the caller owned.
///
/// # Safety
/// As [`with`]; the caller does not use this reference again.
pub(super) unsafe fn free<H: Handle>(handle: *const H) {
    if !handle.is_null() {
        // SAFETY: a live handle is the pointer of an `Arc`, and this reference is the caller's.
        quiet(|| drop(unsafe { Arc::from_raw(handle) }));
    }
}

/// What `call` returned, or what its panic said.
fn caught(call: &mut Call) -> Result<Result<()>, String> {
    let silence = Silence::new();
    // Unwind safety: what a panic may leave half done is behind a handle, which is poisoned and answers nothing more.
    catch_unwind(AssertUnwindSafe(call)).map_err(|payload| {
        let mut text = reason(&*payload);
        if let Some(place) = silence.place() {
            text.push_str(&format!(" ({place})"));
        }
        // Dropping a payload of an unknown type could panic again.
        if !payload.is::<String>() && !payload.is::<&str>() {
            std::mem::forget(payload);
        }
        text
    })
}

fn reason(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::status::*;
    use super::*;
    use std::ptr::null_mut;
    use std::sync::atomic::AtomicUsize;

    struct Thing {
        poisoned: AtomicBool,
        dropped: Arc<AtomicUsize>,
    }

    impl Handle for Thing {
        const NAME: &'static str = "thing";

        fn poisoned(&self) -> &AtomicBool {
            &self.poisoned
        }
    }

    impl Drop for Thing {
        fn drop(&mut self) {
            self.dropped.fetch_add(1, Relaxed);
            assert!(!self.poisoned.load(Relaxed), "a drop that panics is caught too");
        }
    }

    fn thing() -> (*mut Thing, Arc<AtomicUsize>) {
        let dropped = Arc::new(AtomicUsize::new(0));
        let mut out = null_mut();
        // SAFETY: `out` is a local.
        unsafe { give(&raw mut out, Thing { poisoned: AtomicBool::new(false), dropped: dropped.clone() }) };
        (out, dropped)
    }

    fn call(thing: *mut Thing, call: impl FnOnce(&Thing) -> Result<()>) -> i32 {
        // SAFETY: the tests pass NULL or live things.
        unsafe { with(thing, null_mut(), call) }
    }

    #[test]
    fn a_panic_becomes_a_status_and_poisons_the_handle() {
        let (thing, dropped) = thing();
        assert_eq!(call(thing, |_| Ok(())), INLAID_OK);
        assert_eq!(call(thing, |_| Err(Error::Cancelled)), INLAID_ERROR_CANCELLED);
        assert_eq!(call(thing, |_| Ok(())), INLAID_OK, "an error does not poison");
        assert_eq!(call(thing, |_| panic!("on {}", "purpose")), INLAID_ERROR_INTERNAL);
        assert_eq!(call(thing, |_| Ok(())), INLAID_ERROR_POISONED);
        // SAFETY: the last reference.
        unsafe { free(thing) };
        assert_eq!(dropped.load(Relaxed), 1);
    }

    #[test]
    fn a_panic_without_a_handle_becomes_a_status() {
        struct Nasty;
        impl Drop for Nasty {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        // SAFETY: there is no record.
        let run = |call: fn() -> Result<()>| unsafe { guard(null_mut(), call) };
        assert_eq!(run(|| panic!("plain")), INLAID_ERROR_INTERNAL);
        assert_eq!(run(|| std::panic::panic_any(Nasty)), INLAID_ERROR_INTERNAL);
        assert_eq!(run(|| Ok(())), INLAID_OK);
    }

    #[test]
    fn a_handle_freed_within_a_call_lives_until_its_end() {
        let (thing, dropped) = thing();
        let code = call(thing, |inner| {
            // SAFETY: the caller's only reference; the call holds one of its own.
            unsafe { free(thing) };
            assert_eq!(inner.dropped.load(Relaxed), 0);
            Ok(())
        });
        assert_eq!((code, dropped.load(Relaxed)), (INLAID_OK, 1));
    }

    #[test]
    fn null_is_an_error_and_may_be_freed_and_retained() {
        assert_eq!(call(null_mut(), |_| Ok(())), INLAID_ERROR_ARGUMENT);
        // SAFETY: NULL is allowed.
        unsafe {
            retain::<Thing>(null_mut());
            free::<Thing>(null_mut());
        }
        let (thing, dropped) = thing();
        // SAFETY: one reference from `give`, one from `retain`.
        unsafe {
            retain(thing);
            free(thing);
            assert_eq!(dropped.load(Relaxed), 0);
            free(thing);
        }
        assert_eq!(dropped.load(Relaxed), 1);
    }
}
