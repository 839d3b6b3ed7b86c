//! Floor 0: what learning adds to the table of an instruction set.

use crate::act::Act;
use crate::attention::{AttendArgs, BackArgs, Kept};
use crate::linear::{Matrix, PANEL, Run};
use crate::norm::Norm;
use crate::optim::{AdamW, Sgd};
use crate::pages::StateRef;
use crate::plan::TileMut;
use std::ops::Range;

/// Gradients and optimisers of one instruction set.
#[allow(clippy::type_complexity)] // a name for each signature would only hide it
pub struct Back {
    /// [`crate::linear::tiles_isa`]
    pub(crate) tiles_f32: fn(&Run, &mut TileMut, &[u8], &[f32]),
    /// [`crate::norm::norm_dx_isa`]
    pub norm_dx: fn(&mut TileMut, &[f32], &[f32], &[f32], f32, Norm, Option<&[f32]>),
    /// [`crate::norm::norm_dgain_isa`]
    pub norm_dgain: fn(&mut TileMut, Option<&mut TileMut>, &[f32], &[f32], usize, f32, Norm),
    /// [`crate::rope::rope_bwd_isa`]
    pub rope_bwd: fn(&mut TileMut, &[f32], usize, usize, usize, bool, &[f32]),
    /// [`crate::act::act_bwd_isa`]
    pub act_bwd: fn(&mut TileMut, Option<&mut TileMut>, &[f32], &[f32], Option<&[f32]>, usize, Act),
    /// [`crate::logprob::logprob_stats_isa`]
    pub logprob_stats: fn(&mut TileMut, &[f32], usize, &[f32]),
    /// [`crate::logprob::logprob_bwd_isa`]
    pub logprob_bwd: fn(&mut TileMut, &[f32], usize, &[f32], &[u32], &[f32]),
    /// [`crate::attention::attend_stat_isa`]
    pub attend_stat: fn(&mut TileMut, &mut TileMut, &[f32], &StateRef, &AttendArgs, &mut [f32]),
    /// [`crate::attention::attend_delta_isa`]
    pub attend_delta: fn(&mut TileMut, &[f32], &[f32], usize),
    /// [`crate::attention::attend_dq_isa`]
    pub attend_dq: fn(&mut TileMut, &Kept, &BackArgs, &mut [f32]),
    /// [`crate::attention::attend_dkv_isa`]
    pub attend_dkv: fn(&mut TileMut, &mut TileMut, &Kept, &BackArgs, &mut [f32]),
    /// [`crate::attention::attend_dbias_isa`]
    pub attend_dbias: fn(&mut TileMut, &Kept, &BackArgs, &mut [f32]),
    /// [`crate::optim::adamw_isa`]
    pub adamw: fn(&mut TileMut, &mut TileMut, &mut TileMut, &[f32], &AdamW),
    /// [`crate::optim::sgd_isa`]
    pub sgd: fn(&mut TileMut, Option<&mut TileMut>, &[f32], &Sgd),
    /// [`crate::optim::squares_isa`]
    pub squares: fn(&mut TileMut, &[f32]),
    /// [`crate::linear::turn_isa`]
    pub(crate) turn: fn(&mut [[f32; PANEL]], &Matrix, usize, Range<usize>),
}
