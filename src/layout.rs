//! Floor 4: where every buffer of a program lies in memory. Buffers whose lives do not meet share words.

use crate::arch::{Arch, Stack};
use crate::crossing::Crossing;
use crate::error::{Error, Result};
use crate::learns::Learns;
use crate::order::places;
use crate::verb::{Buf, Of};
use crate::weights::{P, Weights};
use kernels::attention::{self, AttendShape, Cache};
use kernels::linear::Pack;
use kernels::{Access, Cut, DType, Ops, Span, Task};
use std::ops::Range;

/// The memory that holds the buffers of a run.
pub const BUFS: usize = 0;

/// Two cache lines: neighbours never share one, and every buffer starts aligned.
const UNIT: usize = 32;

/// Where buffers lie, and the sizes that a verb's task needs.
#[derive(Clone)]
pub struct Layout {
    bufs: Vec<Span>,
    /// `k` and type of every parameter that is a matrix.
    params: Vec<(usize, DType)>,
    /// Rows and columns of every parameter.
    #[cfg(feature = "train")]
    shapes: Vec<[usize; 2]>,
    /// Where gradients of parameters lie.
    #[cfg(feature = "train")]
    learns: Learns,
    ops: &'static Ops,
    shape: AttendShape,
    /// Words of one head of one layer of a page: of the stack's own, of a source's.
    head_words: [usize; 2],
    /// Scratch words of attention.
    pub attend_scratch: usize,
    /// Words of all buffers.
    pub len: usize,
    /// Words of what crosses to the program of the other stack.
    pub crossing: usize,
}

impl Layout {
    /// Every buffer apart from every other: what hazards and lifetimes are read from. Those of `crossing` lie where they stay.
    ///
    /// # Errors
    /// `Memory` where the sizes overflow.
    pub fn apart(
        a: &Arch,
        s: &Stack,
        m: &Weights,
        ops: &'static Ops,
        cache: Cache,
        bufs: &[(usize, usize)],
        crossing: &[(Buf, Crossing)],
        #[cfg_attr(not(feature = "train"), expect(unused_variables))] learns: &Learns,
    ) -> Result<Layout> {
        let (mut end, mut spans) = (0usize, Vec::with_capacity(bufs.len()));
        for &(rows, cols) in bufs {
            spans.push(Span { mem: BUFS, at: end, rows, cols });
            let len = rows.checked_mul(cols).and_then(|len| len.checked_next_multiple_of(UNIT));
            end = len
                .and_then(|len| end.checked_add(len.max(UNIT)))
                .ok_or(Error::Memory { what: "the buffers of one call", bytes: u64::MAX })?;
        }
        let mut crossed = 0;
        for (b, place) in crossing {
            let (span, words) = place.span(bufs[b.0 as usize].into())?;
            (spans[b.0 as usize], crossed) = (span, words.max(crossed));
        }
        let shape = AttendShape { heads: s.n_heads, kv_heads: s.n_kv_heads, dim: s.head_dim, cache };
        Ok(Layout {
            bufs: spans,
            params: m.params.iter().map(|p| p.k_dtype()).collect(),
            #[cfg(feature = "train")]
            shapes: m.params.iter().map(|p| p.shape()).collect(),
            #[cfg(feature = "train")]
            learns: learns.clone(),
            ops,
            head_words: [s, a.last()].map(|of| attention::head_words(of.head_dim, cache)),
            attend_scratch: attention::scratch_words(&shape),
            shape,
            len: end,
            crossing: crossed,
        })
    }

    /// Buffers whose lives (in stages) do not meet share memory. `kept` ones live to the end.
    #[must_use]
    pub fn share(mut self, tasks: &[Task], stages: &[Range<usize>], kept: &[Buf]) -> Layout {
        let lives = self.lives(tasks, stages, kept);
        let order = places(lives.len(), &|a, b| lives[a].0.cmp(&lives[b].0));
        let order = order.into_iter().filter(|&b| lives[b].0 != usize::MAX);
        let mut taken: Vec<(usize, usize, usize)> = Vec::new(); // (start, end, last stage), by start
        let mut total = 0;
        for b in order {
            let (first, last) = lives[b];
            taken.retain(|t| t.2 >= first);
            let len = (self.bufs[b].rows * self.bufs[b].cols).next_multiple_of(UNIT);
            let (mut at, mut slot) = (0, 0); // first gap that fits
            while slot < taken.len() && taken[slot].0 < at + len {
                (at, slot) = (taken[slot].1, slot + 1);
            }
            taken.insert(slot, (at, at + len, last));
            self.bufs[b].at = at;
            total = total.max(at + len);
        }
        self.len = total;
        self
    }

    /// First and last stage that touches each buffer.
    fn lives(&self, tasks: &[Task], stages: &[Range<usize>], kept: &[Buf]) -> Vec<(usize, usize)> {
        let mut lives: Vec<(usize, usize)> = vec![(usize::MAX, 0); self.bufs.len()];
        // By where they begin, as they were laid out.
        let own: Vec<usize> = (0..self.bufs.len()).filter(|b| self.bufs[*b].mem == BUFS).collect();
        for (s, stage) in stages.iter().enumerate() {
            for access in tasks[stage.clone()].iter().flatten() {
                if let Access::Read(span) | Access::Write(span, _) | Access::Deal(span, _) = access
                    && span.mem == BUFS
                {
                    let b = own[own.partition_point(|b| self.bufs[*b].at < span.at)];
                    lives[b] = (lives[b].0.min(s), lives[b].1.max(s));
                }
            }
        }
        kept.iter().for_each(|b| lives[b.0 as usize].1 = usize::MAX);
        lives
    }

    /// Where a buffer lies.
    pub fn buf(&self, b: Buf) -> Span {
        self.bufs[b.0 as usize]
    }

    /// Words of one head of one layer of a page.
    pub fn head_words(&self, of: Of) -> usize {
        self.head_words[usize::from(of == Of::Source)]
    }

    /// Scratch words of a linear.
    pub fn linear_scratch(&self, w: P) -> usize {
        let (k, dtype) = self.params[w.0 as usize];
        self.ops.linear_scratch(k, dtype)
    }

    /// How a linear whose results are packed is shared: by the outputs that its rows have in common.
    pub fn packed_cut(&self, rows: usize, pack: Pack) -> Cut {
        Cut::Cols(self.ops.pack_panel_words(rows, pack))
    }

    /// How attention of the queries is shared: many rows in blocks of rows and heads, few along the keys too.
    pub fn attend_cut(&self, q: Buf, split: bool) -> Cut {
        attention::cut(&self.shape, self.buf(q).rows, split)
    }

    /// How the largest scores and sums of attention of the queries are shared: as its outputs are.
    pub fn stat_cut(&self, q: Buf) -> Cut {
        attention::stat_cut(self.attend_cut(q, false), self.shape.dim)
    }

    /// How the folding of parts is shared.
    pub fn merge_cut(&self) -> Cut {
        attention::merge_cut(&self.shape)
    }
}

/// What the backward half asks.
#[cfg(feature = "train")]
impl Layout {
    /// Where the gradient of a parameter lies. Panics where it does not learn.
    pub fn grad(&self, p: P) -> Span {
        self.learns.span(p).expect("a parameter that learns")
    }

    /// Elements of a vector.
    pub fn width(&self, p: P) -> usize {
        self.shapes[p.0 as usize][1]
    }

    /// Scratch words of the gradient of what a linear reads.
    pub fn dx_scratch(&self, w: P) -> usize {
        self.ops.linear_dx_scratch(self.shapes[w.0 as usize][0])
    }

    /// Scratch words of the gradient of a linear's matrix.
    pub fn dw_scratch(&self) -> usize {
        self.ops.linear_dw_scratch()
    }

    /// How the gradients of keys and values are shared.
    pub fn attend_dkv_cut(&self, k: Buf) -> Cut {
        attention::dkv_cut(&self.shape, self.buf(k).rows)
    }

    /// Scratch words of the gradients of attention.
    pub fn attend_back_scratch(&self) -> usize {
        attention::back_scratch_words(&self.shape)
    }
}
