//! Floor 0: one table of kernels per instruction set, and the choice between them at run time.

use crate::act::Act;
use crate::attention::AttendArgs;
#[cfg(feature = "train")]
use crate::back::Back;
use crate::linear::{Kernel, Laid, Matrix, PANEL, Pack};
use crate::norm::Norm;
use crate::pages::{StateMut, StateRef};
use crate::plan::TileMut;
use crate::simd::LANES;
use std::fmt;
use std::str::FromStr;

/// A choice of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust.
    Scalar,
    /// AVX2 with FMA and F16C; with VNNI where the machine has it.
    Avx2,
    /// AVX-512 F, BW, DQ, VL; with BF16 where the machine has it.
    Avx512,
}

impl Isa {
    /// As `INLAID_ISA` and the configuration spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

/// A name or an instruction set that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsaError {
    /// Not a name of an instruction set.
    Unknown(String),
    /// This machine lacks it.
    Missing(Isa),
}

impl fmt::Display for IsaError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            IsaError::Unknown(name) => write!(f, "expected scalar, avx2 or avx512, found `{name}`"),
            IsaError::Missing(isa) => write!(f, "this machine has no {}", isa.name()),
        }
    }
}

impl FromStr for Isa {
    type Err = IsaError;
    fn from_str(name: &str) -> Result<Isa, IsaError> {
        let known = [Isa::Scalar, Isa::Avx2, Isa::Avx512];
        known.into_iter().find(|isa| isa.name() == name).ok_or_else(|| IsaError::Unknown(name.to_owned()))
    }
}

/// The kernels of one instruction set. The functions are documented where they are defined.
#[allow(clippy::type_complexity)] // a name for each signature would only hide it
pub struct Ops {
    isa: Isa,
    name: &'static str,
    pub(crate) tile_rows: usize,
    /// Whether pairs of bf16 have an instruction.
    pub(crate) pairs: bool,
    /// Whether signed bytes are widened to meet signed weights.
    pub(crate) wide: bool,
    /// [`crate::linear::pack_isa`]
    pub(crate) pack_block: fn(&mut [f32], &[&[f32; PANEL]], usize, usize, Laid),
    /// [`crate::linear::pack_panel`]
    pub pack_panel: fn(&mut [u8], &Matrix, usize),
    pub(crate) linear_f32: Kernel,
    pub(crate) linear_bf16: Kernel,
    pub(crate) linear_blocks: Kernel,
    pub(crate) linear_blocks_row: Kernel,
    /// [`crate::norm::norm_isa`]
    pub norm: fn(&mut TileMut, &[f32], &[f32], Option<&[f32]>, f32, Norm, Option<&[f32]>),
    /// [`crate::rope::rope_isa`]
    pub rope: fn(&mut TileMut, &[f32], usize, usize, usize, bool, &[f32]),
    /// [`crate::act::act_isa`]
    pub(crate) apply: fn(&mut [f32], Act),
    /// [`crate::softmax::softmax_isa`]
    pub softmax: fn(&mut [f32]),
    /// [`crate::logprob::logprob_isa`]
    pub logprob: fn(&mut TileMut, &[f32], usize, &[u32]),
    /// [`crate::sample::block_max_isa`]
    pub block_max: fn(&mut [f32], &[f32]),
    /// [`crate::sample::weigh_isa`]
    pub weigh: fn(&mut [f32], &[f32], f32, f32, &mut [f32], &mut [f32]),
    /// [`crate::attention::append`]
    pub append: fn(&mut StateMut, &[f32], &[f32], &AttendArgs),
    /// [`crate::attention::attend_isa`]
    pub attend: fn(&mut TileMut, &[f32], &StateRef, &AttendArgs, bool, &mut [f32]),
    /// [`crate::attention::merge_isa`]
    pub merge: fn(&mut TileMut, &[f32], &AttendArgs),
    /// [`crate::graft::chains_isa`]
    pub(crate) chains: fn(&mut [[f32; LANES]], &Matrix, usize, &[&[f32]]),
    /// [`crate::embed::embed`]
    pub embed: fn(&mut TileMut, &Matrix, &[u32], f32, &[(&Matrix, &[u32])]),
    /// What learning needs.
    #[cfg(feature = "train")]
    pub back: Back,
    /// [`crate::peak::spin_isa`]
    pub(crate) spin: fn(&mut [f32], usize, Pack),
    /// [`crate::peak::spin_bytes_isa`]
    pub(crate) spin_bytes: fn(&mut [f32], usize),
    /// [`crate::peak::read_isa`]
    pub(crate) read: fn(&mut [f32], &[f32]),
}

/// A table: the instance of what depends on pairs, the one that most functions have, that of quantised weights, and that
/// of what takes little time beside them (norms, softmax and the like) or waits for memory (one row along a file's blocks):
/// 512 bits would gain nothing there.
macro_rules! table {
    ($isa:expr, $name:literal, $tile_rows:literal, $pairs:literal, $wide:literal, $instance:ident, $f32:ident, $blocks:ident, $small:ident) => {
        Ops {
            isa: $isa,
            name: $name,
            tile_rows: $tile_rows,
            pairs: $pairs,
            wide: $wide,
            pack_block: crate::linear::pack_isa::$f32,
            pack_panel: crate::linear::pack_panel_isa::$small,
            linear_f32: crate::linear::f32_isa::$f32,
            linear_bf16: crate::linear::bf16_isa::$instance,
            linear_blocks: crate::linear::blocks_isa::$blocks,
            linear_blocks_row: crate::linear::row_isa::$small,
            norm: crate::norm::norm_isa::$small,
            rope: crate::rope::rope_isa::$small,
            apply: crate::act::act_isa::$f32,
            softmax: crate::softmax::softmax_isa::$small,
            logprob: crate::logprob::logprob_isa::$small,
            block_max: crate::sample::block_max_isa::$small,
            weigh: crate::sample::weigh_isa::$small,
            append: crate::attention::append,
            attend: crate::attention::attend_isa::$f32,
            merge: crate::attention::merge_isa::$small,
            chains: crate::graft::chains_isa::$f32,
            embed: crate::embed::embed,
            #[cfg(feature = "train")]
            back: Back {
                tiles_f32: crate::linear::tiles_isa::$f32,
                norm_dx: crate::norm::norm_dx_isa::$small,
                norm_dgain: crate::norm::norm_dgain_isa::$small,
                rope_bwd: crate::rope::rope_bwd_isa::$small,
                act_bwd: crate::act::act_bwd_isa::$small,
                logprob_stats: crate::logprob::logprob_stats_isa::$small,
                logprob_bwd: crate::logprob::logprob_bwd_isa::$small,
                attend_stat: crate::attention::attend_stat_isa::$f32,
                attend_delta: crate::attention::attend_delta_isa::$small,
                attend_dq: crate::attention::attend_dq_isa::$f32,
                attend_dkv: crate::attention::attend_dkv_isa::$f32,
                attend_dbias: crate::attention::attend_dbias_isa::$f32,
                adamw: crate::optim::adamw_isa::$small,
                sgd: crate::optim::sgd_isa::$small,
                squares: crate::optim::squares_isa::$small,
                turn: crate::linear::turn_isa::$small,
            },
            spin: crate::peak::spin_isa::$instance,
            spin_bytes: crate::peak::spin_bytes_isa::$blocks,
            read: crate::peak::read_isa::$f32,
        }
    };
}

static SCALAR: Ops = table!(Isa::Scalar, "scalar", 1, false, false, scalar, scalar, scalar, scalar);
#[cfg(target_arch = "x86_64")]
static AVX2: Ops = table!(Isa::Avx2, "avx2", 6, false, true, avx2, avx2, avx2, avx2);
#[cfg(target_arch = "x86_64")]
static AVX2_VNNI: Ops = table!(Isa::Avx2, "avx2 with vnni", 6, false, false, avx2, avx2, avx_vnni, avx2);
#[cfg(target_arch = "x86_64")]
static AVX512: Ops = table!(Isa::Avx512, "avx512", 14, false, false, avx512, avx512, avx512, avx2);
#[cfg(target_arch = "x86_64")]
static AVX512_VNNI: Ops =
    table!(Isa::Avx512, "avx512 with vnni", 14, false, false, avx512, avx512, avx512_vnni, avx2);
#[cfg(target_arch = "x86_64")]
static AVX512_BF16: Ops =
    table!(Isa::Avx512, "avx512 with vnni and bf16", 14, true, false, avx512_bf16, avx512, avx512_vnni, avx2);

impl Ops {
    /// Which instruction set.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Every table that this machine can run, the best one last.
    #[must_use]
    pub fn all() -> Vec<&'static Ops> {
        let mut all = vec![&SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            use crate::simd::{Avx2, Avx512, Avx512Bf16, Avx512Vnni, AvxVnni};
            all.extend(Avx2::new().map(|_| &AVX2));
            all.extend(AvxVnni::new().map(|_| &AVX2_VNNI));
            all.extend(Avx512::new().map(|_| &AVX512));
            all.extend(Avx512Vnni::new().map(|_| &AVX512_VNNI));
            let pairs = Avx512Bf16::new().filter(|s| Avx512Vnni::new().is_some() && chains_as_two_fmas(*s));
            all.extend(pairs.map(|_| &AVX512_BF16));
        }
        all
    }

    /// The best table of this machine.
    #[must_use]
    pub fn best() -> &'static Ops {
        Ops::all().into_iter().rev().find(|ops| ops.pays()).unwrap_or(&SCALAR)
    }

    /// Whether its instruction for pairs, if it has one, is faster here than two fused multiply-adds: on some processors it
    /// takes twice their time. Either way the bits are the same.
    fn pays(&self) -> bool {
        #[cfg(target_arch = "x86_64")]
        if self.pairs {
            use std::sync::OnceLock;
            static PAYS: OnceLock<bool> = OnceLock::new();
            return *PAYS.get_or_init(|| self.glance(Pack::Bf16, 2048) > AVX512.glance(Pack::F32, 2048));
        }
        true
    }

    /// The best table of an instruction set.
    ///
    /// # Errors
    /// `Missing` where this machine lacks it.
    pub fn of(isa: Isa) -> Result<&'static Ops, IsaError> {
        Ops::all().into_iter().rev().find(|ops| ops.isa == isa && ops.pays()).ok_or(IsaError::Missing(isa))
    }

    /// What `isa` asks for, or else the environment's `INLAID_ISA`, or else the best. The bits are the same.
    ///
    /// # Errors
    /// `Unknown` or `Missing`.
    pub fn from_env_or(isa: Option<Isa>) -> Result<&'static Ops, IsaError> {
        let named = || std::env::var("INLAID_ISA").ok().filter(|name| !name.is_empty());
        match isa.map_or_else(|| named().map(|name| name.parse()).transpose(), |isa| Ok(Some(isa)))? {
            Some(isa) => Ops::of(isa),
            None => Ok(Ops::best()),
        }
    }
}

/// Whether the machine's instruction for pairs of bf16 computes what two fused multiply-adds do, odd element first: the
/// manuals leave room.
#[cfg(target_arch = "x86_64")]
fn chains_as_two_fmas(s: crate::simd::Avx512Bf16) -> bool {
    use crate::simd::{Scalar, Simd};
    use std::sync::OnceLock;
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
    fn check(s: crate::simd::Avx512Bf16) -> bool {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state & 0x807F_807F) | ((118 + (state >> 8) % 19) << 23) | ((118 + (state >> 16) % 19) << 7)
        };
        (0..256).all(|_| {
            let [a, b, acc] = [(); 3].map(|()| [(); LANES].map(|()| f32::from_bits(next())));
            let mut got = [0.0; LANES];
            s.store(s.dot(s.load(&acc), s.load(&a), s.load(&b)), &mut got);
            got.map(f32::to_bits) == Scalar.dot(acc, a, b).map(f32::to_bits)
        })
    }
    static SAME: OnceLock<bool> = OnceLock::new();
    // SAFETY: the token proves the features.
    *SAME.get_or_init(|| unsafe { check(s) })
}

/// Makes a module of safe functions, one per instruction set, from one generic `#[inline(always)]` function that takes a
/// token first. `on` names the sets where they are not the three usual ones.
macro_rules! per_isa {
    ($(#[$doc:meta])* pub fn $name:ident $args:tt = $with:ident as $instances:ident;) => {
        $crate::ops::per_isa! {
            $(#[$doc])*
            pub fn $name $args = $with as $instances on scalar avx2 avx512;
        }
    };
    ($(#[$doc:meta])* pub fn $name:ident $args:tt = $with:ident as $instances:ident on $($isa:ident)*;) => {
        $(#[$doc])*
        ///
        /// One function per instruction set, to be reached through [`Ops`](crate::ops::Ops).
        pub mod $instances {
            use super::*;
            $($crate::ops::instance! { $isa $with $args })*
        }
    };
}
pub(crate) use per_isa;

/// One of them.
macro_rules! instance {
    (scalar $with:ident ($($arg:ident: $ty:ty),* $(,)?)) => {
        pub(crate) fn scalar($($arg: $ty),*) {
            $with(crate::simd::Scalar, $($arg),*)
        }
    };
    (avx2 $with:ident $args:tt) => {
        $crate::ops::instance! { avx2 Avx2 "avx2,fma,f16c" $with $args }
    };
    (avx_vnni $with:ident $args:tt) => {
        $crate::ops::instance! { avx_vnni AvxVnni "avx2,avxvnni,fma,f16c" $with $args }
    };
    (avx512 $with:ident $args:tt) => {
        $crate::ops::instance! { avx512 Avx512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c" $with $args }
    };
    (avx512_bf16 $with:ident $args:tt) => {
        $crate::ops::instance! {
            avx512_bf16 Avx512Bf16 "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c" $with $args
        }
    };
    (avx512_vnni $with:ident $args:tt) => {
        $crate::ops::instance! {
            avx512_vnni Avx512Vnni "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c" $with $args
        }
    };
    ($isa:ident $token:ident $features:literal $with:ident ($($arg:ident: $ty:ty),* $(,)?)) => {
        #[cfg(target_arch = "x86_64")]
        pub(crate) fn $isa($($arg: $ty),*) {
            #[target_feature(enable = $features)]
            fn enabled($($arg: $ty),*) {
                // SAFETY: this function has the features.
                $with(unsafe { crate::simd::$token::proven() }, $($arg),*)
            }
            // SAFETY: the table that names this function is handed out only where the features were detected.
            unsafe { enabled($($arg),*) }
        }
    };
}
pub(crate) use instance;
