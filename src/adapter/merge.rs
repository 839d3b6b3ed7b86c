//! Floor 3: adapters added into private copies of the matrices that they change. The model's own stay where they are, so
//! that dropping the copies takes everything back. Knows no programs.

use super::set::{Grafts, Here, Piece};
use super::{Adapter, Kind};
use crate::engine::{Charge, Engine};
use crate::error::{Error, Result};
use crate::format::source::{Source, zeroed};
use crate::format::tensors::TensorRef;
use crate::weights::{MatrixParam, P, Param, Role, Site, VectorParam, Weights, matrix_row};
use half::{bf16, f16};
use kernels::linear::{PANEL, pack_panel, panel_bytes};
use kernels::quant::dequantize_row;
use kernels::{DType, Matrix, Order};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What the memory is for, in messages.
const WHAT: &str = "merged adapters";

/// The weights of a model with `by` added to them, and the charge for what is private of them. Matrices keep type and
/// order; sums are rounded once, to nearest even.
///
/// # Errors
/// `Unsupported` for quantised weights, or adapters that are no change of weights; `Tensor` for sums that are not finite;
/// `Budget`, `Memory`.
pub(crate) fn merge(engine: &Arc<Engine>, base: &Weights, by: &Grafts) -> Result<(Weights, Charge)> {
    let weights_only = |adapter: &Adapter| matches!(adapter.config().kind, Kind::Lora | Kind::Ia3);
    if let Some((adapter, _)) = by.list.iter().find(|(adapter, _)| !weights_only(adapter)) {
        let kind = adapter.config().kind.name();
        let what = format!("merging an adapter of type {kind}, which changes no weights: attach it,");
        return Err(Error::Unsupported { file: adapter.name().to_owned(), what });
    }
    let sites = base.sites.list();
    let touched = || (0u32..).zip(sites).filter(|(at, _)| by.needs[*at as usize].any());
    let mut bytes = 0_u64;
    for (at, site) in touched() {
        bytes = bytes.saturating_add(private_bytes(base, site, by.here(at))?);
    }
    let charge = engine.charge(WHAT, bytes)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(engine.threads()).build();
    let pool = pool.map_err(|e| Error::Internal(format!("threads to merge on: {e}")))?;
    let mut out = base.clone();
    for (at, site) in touched() {
        let here = by.here(at);
        match (site.role, &here.outputs) {
            (Role::Norm, Some([gains, biases])) => {
                out.params[site.w.0 as usize] = Param::Vector(VectorParam::computed(gains.clone()));
                if let Some(p) = site.bias {
                    out.params[p.0 as usize] = Param::Vector(VectorParam::computed(biases.clone()));
                }
            }
            (Role::Norm, None) => {}
            (_, outputs) => {
                if let Param::Matrix(old) = &base.params[site.w.0 as usize]
                    && changes_matrix(here)
                {
                    let new = Job { old, role: site.role, here, by }.run(&pool)?;
                    place(&mut out, at, site, Param::Matrix(new));
                }
                if let Some([factors, shifts]) = outputs {
                    bias(&mut out, at, factors, shifts);
                }
            }
        }
    }
    Ok((out, charge))
}

fn changes_matrix(here: &Here) -> bool {
    let scaled = here.outputs.as_ref().is_some_and(|[factors, _]| factors.iter().any(|f| *f != 1.0));
    !here.low.is_empty() || !here.full.is_empty() || here.inputs.is_some() || scaled
}

/// Bytes that the copy of a place's matrix takes.
fn private_bytes(base: &Weights, site: &Site, here: &Here) -> Result<u64> {
    let Param::Matrix(m) = &base.params[site.w.0 as usize] else { return Ok(0) };
    if !changes_matrix(here) {
        return Ok(0);
    }
    let w = m.matrix();
    if w.dtype().block() > 1 {
        let what = format!("merging an adapter into `{}`, which is quantised: attach it,", m.name);
        return Err(Error::Unsupported { file: m.tensor.file().to_owned(), what });
    }
    size(&w).map(|bytes| bytes as u64).ok_or(Error::Memory { what: "merged adapters", bytes: u64::MAX })
}

/// Bytes of a matrix in the order that it has.
fn size(w: &Matrix) -> Option<usize> {
    match w.order() {
        Order::Panels => w.n().div_ceil(PANEL).checked_mul(panel_bytes(w.dtype(), w.k())?),
        _ => w.n().checked_mul(w.k())?.checked_mul(w.dtype().block_bytes()),
    }
}

/// Puts a matrix in the place of another one. Where that plays another role too (a head that is the table of tokens), it
/// stays for that one.
fn place(out: &mut Weights, at: u32, site: &Site, new: Param) {
    let roles =
        [Role::Linear, Role::Table].into_iter().filter(|role| out.sites.find(*role, site.w).is_some());
    if roles.count() == 1 {
        out.params[site.w.0 as usize] = new;
        return;
    }
    out.params.push(new);
    let w = P(out.params.len() as u32 - 1);
    if site.role == Role::Table {
        let stacks = [&mut out.encoder, &mut out.decoder].into_iter().flatten();
        stacks.filter(|stack| stack.tokens == site.w).for_each(|stack| stack.tokens = w);
    } else {
        out.linears_mut().filter(|linear| linear.w == site.w).for_each(|linear| linear.w = w);
    }
    out.sites.moved(at, w);
}

/// Scales and shifts the bias of a place, which gets one where it had none.
fn bias(out: &mut Weights, at: u32, factors: &[f32], shifts: &[f32]) {
    let site = out.sites.list()[at as usize].clone();
    if let Some(p) = site.bias {
        if let Param::Vector(old) = &mut out.params[p.0 as usize] {
            old.values.iter_mut().zip(factors.iter().zip(shifts)).for_each(|(b, (f, s))| *b = *b * f + s);
        }
    } else if shifts.iter().any(|shift| *shift != 0.0) {
        out.params.push(Param::Vector(VectorParam::computed(shifts.to_vec())));
        let p = P(out.params.len() as u32 - 1);
        out.linears_mut().filter(|linear| linear.w == site.w).for_each(|linear| linear.bias = Some(p));
        out.sites.set_bias(site.w, Some(p));
    }
}

/// A matrix to be added to.
struct Job<'a> {
    old: &'a MatrixParam,
    role: Role,
    here: &'a Here,
    by: &'a Grafts,
}

impl Job<'_> {
    fn run(&self, pool: &ThreadPool) -> Result<MatrixParam> {
        let w = self.old.matrix();
        let bytes = size(&w).unwrap_or(usize::MAX);
        let mut memory = zeroed(WHAT, bytes)?;
        match w.order() {
            Order::Nk => self.fill(pool, &w, &mut memory)?,
            order => {
                let row = w.dtype().row_bytes(w.k()).unwrap_or_default();
                let mut rows = zeroed(WHAT, w.n() * row)?;
                self.fill(pool, &w, &mut rows)?;
                let new = Matrix::new(&rows, w.dtype(), Order::Nk, w.n(), w.k(), row);
                let new = new.map_err(|e| Error::Internal(format!("a merged matrix {e}")))?;
                if order == Order::Panels {
                    let panel = panel_bytes(w.dtype(), w.k()).unwrap_or(1).max(1);
                    let one = |(p, out): (usize, &mut [u8])| pack_panel(out, &new, p);
                    pool.install(|| memory.par_chunks_exact_mut(panel).enumerate().for_each(one));
                } else {
                    turn(&mut memory, &rows, w.dtype().block_bytes(), [w.n(), w.k()]);
                }
            }
        }
        let memory = memory.make_read_only().map_err(Error::io(WHAT))?;
        let source = Source::anonymous(WHAT, memory);
        let tensor = match w.order() {
            Order::Panels => TensorRef::panels(w.dtype(), [w.n(), w.k()], source, 0..bytes),
            Order::Nk => TensorRef::dense(w.dtype(), &[w.n(), w.k()], source, 0..bytes),
            Order::Kn => TensorRef::dense(w.dtype(), &[w.k(), w.n()], source, 0..bytes),
        };
        if w.order() == Order::Panels {
            return Ok(self.old.packed(tensor));
        }
        Ok(self.old.replaced(tensor))
    }

    /// Writes all rows, a row per output.
    fn fill(&self, pool: &ThreadPool, w: &Matrix, out: &mut [u8]) -> Result<()> {
        let (row, wrong) = (w.dtype().row_bytes(w.k()).unwrap_or(1).max(1), AtomicBool::new(false));
        let one = |values: &mut Vec<f32>, (i, out): (usize, &mut [u8])| {
            values.resize(w.k(), 0.0);
            matrix_row(w, i, values);
            self.add(i, values);
            if !narrow(w.dtype(), values, out) {
                wrong.store(true, Relaxed);
            }
        };
        pool.install(|| out.par_chunks_exact_mut(row).enumerate().for_each_init(Vec::new, one));
        if wrong.load(Relaxed) {
            let (file, tensor) = (self.old.tensor.file().to_owned(), self.old.name.clone());
            let what = format!("merged with the adapters it holds numbers beyond {}", w.dtype().name());
            return Err(Error::Tensor { file, tensor, what });
        }
        Ok(())
    }

    /// What the adapters make of row `i`.
    fn add(&self, i: usize, row: &mut [f32]) {
        let here = self.here;
        if let Some(inputs) = &here.inputs {
            row.iter_mut().zip(inputs).for_each(|(x, factor)| *x *= factor);
        }
        if let (Some([factors, _]), Role::Linear) = (&here.outputs, self.role) {
            row.iter_mut().for_each(|x| *x *= factors[i]);
        }
        for piece in &here.low {
            self.low(i, row, piece);
        }
        let mut new = vec![0.0; if here.full.is_empty() { 0 } else { row.len() }];
        for piece in &here.full {
            let (module, place) = self.by.module(piece);
            dequantize_row(DType::F32, module.weight_of(place).row(i), &mut new);
            if self.role == Role::Table {
                row.iter_mut().zip(&new).for_each(|(x, new)| *x += piece.scale * (new - *x));
            } else {
                row.iter_mut().zip(&new).for_each(|(x, new)| *x += piece.scale * new);
            }
        }
    }

    fn low(&self, i: usize, row: &mut [f32], piece: &Piece) {
        let (lora, place) = self.by.lora(piece);
        let gain = piece.scale * piece.gains.as_ref().map_or(1.0, |gains| gains[i]);
        if self.role == Role::Table {
            let vocab = lora.a.len() / lora.rank;
            for (x, b) in row.iter_mut().zip(lora.b.chunks_exact(lora.rank)) {
                let column = lora.a.iter().skip(i).step_by(vocab);
                let dot: f32 = b.iter().zip(column).map(|(b, a)| b * a).sum();
                *x += gain * dot;
            }
            return;
        }
        let at = place.rows.rows(i + 1).last().unwrap_or(0);
        let mut delta = vec![0.0; row.len()];
        for (b, a) in lora.b[at * lora.rank..][..lora.rank].iter().zip(lora.a.chunks_exact(row.len())) {
            delta.iter_mut().zip(a).for_each(|(d, a)| *d += b * a);
        }
        row.iter_mut().zip(delta).for_each(|(x, d)| *x += gain * d);
    }
}

/// Elements of `size` bytes with a row per input, from rows `[n, k]` per output.
fn turn(out: &mut [u8], rows: &[u8], size: usize, [n, k]: [usize; 2]) {
    for (at, out) in out.chunks_exact_mut(size).take(n * k).enumerate() {
        let (input, output) = (at / n, at % n);
        out.copy_from_slice(&rows[(output * k + input) * size..][..size]);
    }
}

/// Rounds to the type of `out`; whether all numbers are finite then.
pub(super) fn narrow(to: DType, values: &[f32], out: &mut [u8]) -> bool {
    let mut finite = true;
    for (out, value) in out.chunks_exact_mut(to.block_bytes()).zip(values) {
        let rounded = match to {
            DType::F16 => {
                let half = f16::from_f32(*value);
                out.copy_from_slice(&half.to_le_bytes());
                half.to_f32()
            }
            DType::BF16 => {
                let half = bf16::from_f32(*value);
                out.copy_from_slice(&half.to_le_bytes());
                half.to_f32()
            }
            _ => {
                out.copy_from_slice(&value.to_le_bytes());
                *value
            }
        };
        finite &= rounded.is_finite();
    }
    finite
}
