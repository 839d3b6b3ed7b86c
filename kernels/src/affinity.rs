//! Floor 0: which processors a thread may run on. Knows Linux; elsewhere the answer is that it cannot be said.

use std::io;

/// Processor numbers are below this.
pub const MOST: usize = 4096;

/// Restricts the calling thread to `cores`.
///
/// # Errors
/// `Unsupported` on other systems than Linux; `InvalidInput` for a processor that this process may not use, or none.
#[cfg(target_os = "linux")]
pub(crate) fn restrict(cores: &[usize]) -> io::Result<()> {
    use std::mem::size_of_val;
    let mut wanted = [0u64; MOST / 64];
    for &core in cores {
        let word = wanted.get_mut(core / 64).ok_or_else(|| refused(core))?;
        *word |= 1 << (core % 64);
    }
    // SAFETY: 0 is the calling thread; the mask has as many bytes as are said, of whole machine words.
    let set = unsafe { libc::sched_setaffinity(0, size_of_val(&wanted), wanted.as_ptr().cast()) };
    if set != 0 {
        return Err(cores.first().map_or_else(io::Error::last_os_error, |core| refused(*core)));
    }
    let mut got = [0u64; MOST / 64];
    // SAFETY: as above, and nobody else knows this mask.
    let read = unsafe { libc::sched_getaffinity(0, size_of_val(&got), got.as_mut_ptr().cast()) };
    if read != 0 {
        return Err(io::Error::last_os_error());
    }
    // The system leaves out, without a word, what the process may not use.
    let missing = cores.iter().find(|core| got[**core / 64] >> (**core % 64) & 1 == 0);
    missing.map_or(Ok(()), |core| Err(refused(*core)))
}

#[cfg(target_os = "linux")]
fn refused(core: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("processor {core} is none that this process may use"))
}

/// As on Linux, where it can be done.
#[cfg(not(target_os = "linux"))]
pub(crate) fn restrict(_: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux", not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_told_to() {
        let on = |cores: &'static [usize]| std::thread::spawn(|| restrict(cores)).join().expect("a thread");
        on(&[0]).expect("the first processor");
        for beyond in [&[MOST - 1][..], &[0, MOST - 1], &[MOST], &[usize::MAX]] {
            assert_eq!(on(beyond).expect_err("no such processor").kind(), io::ErrorKind::InvalidInput);
        }
        assert!(on(&[]).is_err());
    }
}
