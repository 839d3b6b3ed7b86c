//! Floor 6: the engine handle: threads, kernels, budget and log.

use super::args::{set, slice};
use super::error::{argument, inlaid_error};
use super::guard::{Handle, free, give, guard, retain, with};
use super::versioned::{Versioned, init, read, write};
use crate::engine::{Engine, EngineConfig, Level, Log};
use crate::error::Result;
use kernels::Isa;
use std::ffi::{CStr, c_char, c_void};
use std::mem::offset_of;
use std::ptr::{null, null_mut};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The best kernels of this machine.
pub const INLAID_ISA_AUTO: i32 = 0;
/// Plain code, for any machine.
pub const INLAID_ISA_SCALAR: i32 = 1;
/// AVX2 with FMA and F16C.
pub const INLAID_ISA_AVX2: i32 = 2;
/// AVX-512, with BF16 where the machine has it.
pub const INLAID_ISA_AVX512: i32 = 3;

/// Nothing is logged.
pub const INLAID_LOG_NONE: i32 = 0;
/// Only what the host should know of.
pub const INLAID_LOG_WARN: i32 = 1;
/// Also what was done and how long it took.
pub const INLAID_LOG_INFO: i32 = 2;

/// Receives a message of an engine: its level, and `len` bytes of UTF-8 that are valid until the function returns.
///
/// Called on a thread that runs a call of this library, no lock held; several at once where several threads work. It must
/// return normally (no exception, no `longjmp`).
pub type inlaid_log_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, level: i32, text: *const c_char, len: usize)>;

/// What an engine is made with. Fill it with `inlaid_engine_config_init`, then change what you need.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_engine_config {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Threads that compute, the calling one included; 0 (default): as many as the process may use, or as there are
    /// `cores`; at most 1024. Results have the same bits for every number.
    pub threads: i32,
    /// `INLAID_ISA_...`, default `INLAID_ISA_AUTO`. Results have the same bits for each.
    pub isa: i32,
    /// The most detailed level that `log` receives, default `INLAID_LOG_INFO`.
    pub log_level: i32,
    /// Most private bytes that models and sessions of this engine may take together; 0 (default): no limit. Mapped weights
    /// are not private.
    pub budget_bytes: u64,
    /// Where messages go; NULL (default): nowhere.
    pub log: inlaid_log_fn,
    /// The first argument of `log`.
    pub log_user: *mut c_void,
    /// Numbers of the processors that the engine's own threads may run on; NULL (default): wherever the system puts them.
    /// Copied by the call. The calling thread computes too, and is yours: its affinity is never changed; restrict it
    /// yourself where all of the work shall stay on these processors. Linux; elsewhere `INLAID_ERROR_UNSUPPORTED`.
    pub cores: *const u32,
    /// Entries of `cores` (default 0).
    pub n_cores: usize,
}

/// Bytes of the struct before `cores` was added.
const FIRST_SIZE: usize = offset_of!(inlaid_engine_config, cores);

/// What an engine is. Set `struct_size`, then call `inlaid_engine_get_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct inlaid_engine_info {
    /// Bytes of this struct as the caller knows it.
    pub struct_size: u32,
    /// Threads that compute.
    pub threads: i32,
    /// Private bytes that its models and sessions hold or have set aside.
    pub used_bytes: u64,
    /// Name of the kernels in use: "scalar", "avx2" or "avx512". Static, NUL-terminated.
    pub isa: *const c_char,
}

// SAFETY: fields fill 4 * 4 + 8 bytes, three pointers and a size; zero is none, NULL or a null function.
unsafe impl Versioned for inlaid_engine_config {
    const NAME: &'static str = "engine config";
    const SIZES: &'static [usize] = &[FIRST_SIZE, size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_engine_config {
            struct_size: size_of::<Self>() as u32,
            threads: 0,
            isa: INLAID_ISA_AUTO,
            log_level: INLAID_LOG_INFO,
            budget_bytes: 0,
            log: None,
            log_user: null_mut(),
            cores: null(),
            n_cores: 0,
        }
    }
}

// SAFETY: fields fill 4 + 4 + 8 bytes and a pointer; on 32-bit machines that align u64 to 8 the struct ends in padding,
// which nothing reads as a field.
unsafe impl Versioned for inlaid_engine_info {
    const NAME: &'static str = "engine info";
    const SIZES: &'static [usize] = &[size_of::<Self>()];

    fn defaults() -> Self {
        inlaid_engine_info { struct_size: size_of::<Self>() as u32, threads: 0, used_bytes: 0, isa: null() }
    }
}

/// Threads that compute, the kernels of this machine, a memory budget and a log, shared by the models that are opened
/// with it. Opaque, reference-counted; all its calls may be made from many threads at once.
pub struct inlaid_engine {
    poisoned: AtomicBool,
    pub(super) engine: Arc<Engine>,
}

impl Handle for inlaid_engine {
    const NAME: &'static str = "engine";

    fn poisoned(&self) -> &AtomicBool {
        &self.poisoned
    }
}

/// The caller's pointer, handed back to the caller's functions and never looked at.
#[derive(Clone, Copy)]
pub(super) struct User(pub *mut c_void);

// SAFETY: only the caller's functions use it; the header says on which threads they are called.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// The kernels' name as C knows it.
pub(super) fn c_isa(name: &str) -> &'static CStr {
    match name {
        "avx2" => c"avx2",
        "avx512" => c"avx512",
        _ => c"scalar",
    }
}

/// # Safety
/// `from` is NULL or points to a struct with valid fields.
unsafe fn config_of(from: *const inlaid_engine_config) -> Result<EngineConfig> {
    // SAFETY: the caller's promise.
    let c = unsafe { read(from) }?;
    let threads = usize::try_from(c.threads)
        .map_err(|_| argument("threads", format!("expected 0 or more, found {}", c.threads)))?;
    let isa = match c.isa {
        INLAID_ISA_AUTO => None,
        INLAID_ISA_SCALAR => Some(Isa::Scalar),
        INLAID_ISA_AVX2 => Some(Isa::Avx2),
        INLAID_ISA_AVX512 => Some(Isa::Avx512),
        other => return Err(argument("isa", format!("expected INLAID_ISA_..., found {other}"))),
    };
    let most = match c.log_level {
        INLAID_LOG_NONE => None,
        INLAID_LOG_WARN => Some(Level::Warn),
        INLAID_LOG_INFO => Some(Level::Info),
        other => return Err(argument("log_level", format!("expected INLAID_LOG_..., found {other}"))),
    };
    let log = c.log.zip(most).map(|(log, most)| logger(log, User(c.log_user), most));
    // SAFETY: the caller's promise.
    let cores = unsafe { slice("cores", c.cores, c.n_cores) }?.iter().map(|core| *core as usize).collect();
    let budget = (c.budget_bytes > 0).then_some(c.budget_bytes);
    Ok(EngineConfig { threads, cores, isa, budget, log })
}

fn logger(log: unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize), user: User, most: Level) -> Log {
    Box::new(move |level, text| {
        let user = user;
        if level <= most {
            let level = if level == Level::Warn { INLAID_LOG_WARN } else { INLAID_LOG_INFO };
            // SAFETY: the caller's function, with the arguments that the header promises it.
            unsafe { log(user.0, level, text.as_ptr().cast(), text.len()) };
        }
    })
}

/// Fills a config with defaults. `struct_size` is `sizeof(inlaid_engine_config)`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_engine_config_init(
    config: *mut inlaid_engine_config,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { guard(null_mut(), || init(config, struct_size)) }
}

/// Makes an engine and starts its threads. `config` may be NULL: defaults. On success `*engine` is a reference that the
/// caller owns; on failure it is NULL.
///
/// Errors: `INLAID_ERROR_ARGUMENT` for a thread count beyond 1024, kernels that this machine lacks, or a processor that this
/// process may not use; `INLAID_ERROR_UNSUPPORTED` for `cores` on a system that cannot restrict threads;
/// `INLAID_ERROR_INTERNAL` where it gives none. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_engine_new(
    config: *const inlaid_engine_config,
    engine: *mut *mut inlaid_engine,
    err: *mut inlaid_error,
) -> i32 {
    let call = || {
        // SAFETY: the caller's promise, for each pointer.
        unsafe { set("engine", engine, null_mut()) }?;
        // SAFETY: as above.
        let config = unsafe { config_of(config) }?;
        let value = inlaid_engine { poisoned: AtomicBool::new(false), engine: Engine::new(config)? };
        // SAFETY: `set` found that it may be written.
        unsafe { give(engine, value) };
        Ok(())
    };
    // SAFETY: the caller's promise.
    unsafe { guard(err, call) }
}

/// Counts one more reference, which the caller owns. NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_engine_retain(engine: *const inlaid_engine) {
    // SAFETY: the caller's promise.
    unsafe { retain(engine) };
}

/// Gives back a reference. The engine ends with its last reference, and after the last model that was opened with it.
/// NULL is fine. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_engine_free(engine: *mut inlaid_engine) {
    // SAFETY: the caller's promise.
    unsafe { free(engine) };
}

/// Says what an engine is and what it holds. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn inlaid_engine_get_info(
    engine: *const inlaid_engine,
    info: *mut inlaid_engine_info,
    err: *mut inlaid_error,
) -> i32 {
    let call = |handle: &inlaid_engine| {
        let engine = &handle.engine;
        let value = inlaid_engine_info {
            struct_size: size_of::<inlaid_engine_info>() as u32,
            threads: i32::try_from(engine.threads()).unwrap_or(i32::MAX),
            used_bytes: engine.used_bytes(),
            isa: c_isa(engine.isa()).as_ptr(),
        };
        // SAFETY: the caller's promise.
        unsafe { write(info, value) }
    };
    // SAFETY: the caller's promise.
    unsafe { with(engine, err, call) }
}
