//! Floor 3: a model's linears brought into packed panels, as they are or quantised. Knows what a host may want and no
//! maths.
//!
//! All panels lie in one piece of memory, in huge pages where the system has them: a product reads one stream through
//! few entries of the address cache. What was packed is released, so that at most one copy of a matrix is in memory.

use crate::arch::Arch;
use crate::engine::Charge;
use crate::error::{Error, Result};
use crate::format::convert::configs;
use crate::format::files::{Files, Load, SINGLE};
use crate::format::source::{Progress, Reading, Source, zeroed};
use crate::format::tensors::TensorRef;
use crate::format::write::{Planned, safetensors};
use crate::order::sorted;
use crate::weights::{MatrixParam, P, Param, Weights};
use kernels::linear::{Guide, PANEL, pack_panel, panel_bytes, quantise_panel};
use kernels::{DType, Matrix, Order};
use rayon::ThreadPool;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// How a host wants weights held. What is packed already stays so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Where the budget has room, quantised weights packed, and all those of a model that has an encoder; the rest mapped.
    #[default]
    Auto,
    /// All where they lie in their file: nothing is copied.
    Mapped,
    /// All linears in panels, in the type they have: the same bits as mapped, faster.
    Packed,
    /// All linears and tables of tokens in panels of eight bits (8.5 with scales).
    Q8,
    /// All linears in panels of four bits (4.5 with scales and minima), the head and tables of tokens in six (6.6).
    Q4,
}

/// How linears are best quantised, by the names of their matrices: what
/// [`calibrate::importance`](crate::calibrate::importance) learns from a text.
pub struct Importance {
    guides: HashMap<String, Arc<Guide>>,
    _charge: Charge,
}

impl Importance {
    /// `charge` is for the memory of the guides.
    pub(crate) fn new(guides: HashMap<String, Arc<Guide>>, charge: Charge) -> Importance {
        Importance { guides, _charge: charge }
    }

    /// Of a matrix.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Guide> {
        self.guides.get(name).map(|guide| &**guide)
    }
}

/// A matrix to be packed.
struct Job {
    param: P,
    to: DType,
    panel: usize,
    bytes: usize,
}

impl Hold {
    /// The type that a matrix takes, where it has to be packed. A head or table of four bits costs more quality than all
    /// other matrices together, one of six hardly any.
    ///
    /// Who has an encoder meets a text, and the beams or batches of its answers, with more than one row at a time: in the order
    /// of a file, each time costs a transposition of every weight. A decoder's single row reads what is mapped as it lies.
    fn target(self, m: &MatrixParam, by_token: bool, encoder: bool) -> Option<DType> {
        let w = m.matrix();
        let own = w.dtype();
        if w.order() == Order::Panels {
            return None;
        }
        let narrow = |to: DType| Some(if w.k().is_multiple_of(32) { to } else { own });
        match self {
            Hold::Auto => (encoder || own.block() > 1).then_some(own),
            Hold::Mapped => None,
            Hold::Packed => Some(own),
            Hold::Q8 => narrow(DType::Q8_0),
            Hold::Q4 => narrow(if by_token { DType::Q6K } else { DType::Q4K }),
        }
    }
}

/// The matrices that `hold` wants packed. A table of tokens that is no head is read row by row: it only becomes smaller.
fn jobs(weights: &mut Weights, hold: Hold) -> Vec<Job> {
    let smaller = matches!(hold, Hold::Q8 | Hold::Q4);
    let by_token: Vec<P> = weights.tables().filter(|_| smaller).chain(weights.logits()).collect();
    let params = weights.linears_mut().map(|linear| linear.w).chain(by_token.iter().copied()).collect();
    let mut params: Vec<P> = sorted(params, |a: &P, b| a.0.cmp(&b.0));
    params.dedup();
    let encoder = weights.encoder.is_some();
    let job = |param: P| {
        let Param::Matrix(m) = &weights.params[param.0 as usize] else { return None };
        let (to, w) = (hold.target(m, by_token.contains(&param), encoder)?, m.matrix());
        let panel = panel_bytes(to, w.k())?;
        Some(Job { param, to, panel, bytes: w.n().div_ceil(PANEL).checked_mul(panel)? })
    };
    params.into_iter().filter_map(job).collect()
}

/// Private bytes that packing as `hold` wants takes.
pub fn bytes(weights: &mut Weights, hold: Hold) -> u64 {
    jobs(weights, hold).iter().map(|job| job.bytes as u64).sum()
}

/// Packs what `hold` wants packed, on `threads` threads.
///
/// # Errors
/// `Memory`; `Cancelled`; `Tensor` for weights that cannot be quantised. The weights are as before then.
pub fn pack(
    weights: &mut Weights,
    hold: Hold,
    threads: usize,
    importance: Option<&Importance>,
    reading: &mut Reading,
) -> Result<()> {
    let jobs = jobs(weights, hold);
    let total: usize = jobs.iter().map(|job| job.bytes).sum();
    if total == 0 {
        return Ok(());
    }
    reading.expect(total as u64)?;
    let mut memory = zeroed("packed weights", total)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Internal(format!("{threads} threads to pack on: {e}")))?;
    let mut rest = &mut memory[..];
    for job in &jobs {
        let (panels, after) = rest.split_at_mut(job.bytes);
        rest = after;
        let Param::Matrix(m) = &weights.params[job.param.0 as usize] else { continue };
        fill(&pool, panels, job, m, importance.and_then(|of| of.get(&m.name)), reading)?;
        m.tensor.release();
    }
    let memory = memory.make_read_only().map_err(Error::io("packed weights"))?;
    adopt(weights, &jobs, Source::anonymous("packed weights", memory));
    Ok(())
}

/// Bytes of panels between two looks at the progress callback: some milliseconds.
const PIECE: usize = 8 << 20;

/// Fills the panels of one matrix, some at a time.
fn fill(
    pool: &ThreadPool,
    panels: &mut [u8],
    job: &Job,
    m: &MatrixParam,
    guide: Option<&Guide>,
    reading: &mut Reading,
) -> Result<()> {
    let (w, per) = (m.matrix(), (PIECE / job.panel.max(1)).max(1));
    let quantise = job.to != w.dtype();
    for (piece, panels) in panels.chunks_mut(per * job.panel).enumerate() {
        let failed = AtomicBool::new(false);
        let one = |(i, panel): (usize, &mut [u8])| {
            let p = piece * per + i;
            if !quantise {
                pack_panel(panel, &w, p);
            } else if quantise_panel(panel, job.to, &w, p, guide).is_err() {
                failed.store(true, Relaxed);
            }
        };
        pool.install(|| panels.par_chunks_exact_mut(job.panel).enumerate().for_each(one));
        if failed.load(Relaxed) {
            let what = "holds weights that are not finite or too large to be quantised".to_owned();
            let (file, tensor) = (m.tensor.file().to_owned(), m.name.clone());
            return Err(Error::Tensor { file, tensor, what });
        }
        reading.advance(panels.len() as u64)?;
    }
    Ok(())
}

/// Puts the panels in the place of what they were packed from.
fn adopt(weights: &mut Weights, jobs: &[Job], memory: Source) {
    let mut at = 0;
    for job in jobs {
        let range = at..at + job.bytes;
        at = range.end;
        if let Param::Matrix(m) = &mut weights.params[job.param.0 as usize] {
            let w = m.matrix();
            let shape = [w.n(), w.k()];
            *m = m.packed(TensorRef::panels(job.to, shape, memory.clone(), range));
        }
    }
    weights.retype();
}

/// Writes `config.json`, `generation_config.json` and the weights of the model in `files` to the directory `out`, all
/// linears in packed panels as `hold` says. The file is mapped afterwards as it is.
///
/// # Errors
/// As [`pack`] and [`crate::format::convert::configs`]; `Unsupported` for weights that are packed already; `Io`. Each file
/// is written whole or not at all.
pub fn write(
    files: &Files,
    out: &Path,
    hold: Hold,
    threads: usize,
    importance: Option<&Importance>,
    progress: &mut Option<Progress>,
) -> Result<()> {
    let config = files.config()?;
    let arch = Arch::read(&config)?;
    let tensors = files.tensors(Load::Map, &mut None)?;
    let mut weights = Weights::bind(&arch, &tensors)?;
    pack(&mut weights, hold, threads, importance, &mut Reading::new(Load::Map, progress))?;
    let mut list: Vec<(Planned, Cow<[u8]>)> = Vec::new();
    for (name, tensor) in weights.tensors(&tensors) {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let (packed, bytes) = if tensor.is_packed() {
            (Some(crc32fast::hash(tensor.bytes())), Cow::Borrowed(tensor.bytes()))
        } else if let ([n, k], false) = (&shape[..], dtype.block() == 1) {
            let bytes = table(tensor, [*n, *k])?;
            (Some(crc32fast::hash(&bytes)), Cow::Owned(bytes))
        } else {
            (None, Cow::Borrowed(tensor.bytes()))
        };
        list.push((Planned { name, dtype, shape, packed }, bytes));
    }
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let path = out.join(SINGLE);
    let (planned, bytes): (Vec<Planned>, Vec<Cow<[u8]>>) = list.into_iter().unzip();
    let total = bytes.iter().map(|bytes| bytes.len() as u64).sum();
    let mut reading = Reading::new(Load::Map, progress);
    reading.expect(total)?;
    safetensors(&path, &planned, |i, file| {
        for piece in bytes.get(i).map_or(&[][..], |bytes| bytes).chunks(PIECE) {
            file.write_all(piece).map_err(Error::io(&path))?;
            reading.advance(piece.len() as u64)?;
        }
        Ok(())
    })?;
    configs(files, config.object_itself().clone(), out)
}

/// A quantised table that is no linear, in panels: the only form that the file has for it.
fn table(tensor: &TensorRef, [n, k]: [usize; 2]) -> Result<Vec<u8>> {
    let wrong = |what: String| Error::Tensor { file: tensor.file().to_owned(), tensor: "table".into(), what };
    let (dtype, stride) = (tensor.dtype(), tensor.dtype().row_bytes(k).unwrap_or(0));
    let w = Matrix::new(tensor.bytes(), dtype, Order::Nk, n, k, stride).map_err(|e| wrong(e.to_string()))?;
    let panel = panel_bytes(dtype, k).ok_or_else(|| wrong("is not whole blocks".into()))?;
    let mut bytes = vec![0; n.div_ceil(PANEL) * panel];
    for (p, panel) in bytes.chunks_exact_mut(panel.max(1)).enumerate() {
        pack_panel(panel, &w, p);
    }
    Ok(bytes)
}
