//! Floor 0: what happens to the finished sums of a linear, and where they go: to rows, or laid out as the next linear reads
//! them. Knows no weights.

use super::activations::{BLOCK, Laid, Pack};
use super::tile::MOST;
use super::{Matrix, PANEL};
use crate::act::Act;
use crate::ops::Ops;
use crate::plan::TileMut;
use crate::simd::{Apart, LANES, Simd};
use std::ops::Range;

/// What happens to finished sums `[rows, n]`, in this order.
#[derive(Clone, Copy, Default)]
pub struct Then<'a> {
    /// `[n]`, added.
    pub bias: Option<&'a [f32]>,
    /// `[rows, n]`, added.
    pub add: Option<&'a [f32]>,
    /// Taken of each.
    pub act: Option<Act>,
    /// `[rows, n]`, multiplied by.
    pub times: Option<&'a [f32]>,
    /// `[n, k]` of w's type: multiplied by its products with the same x, which are never written. Of [`BY_ROWS`] rows or more.
    pub by: Option<&'a Matrix<'a>>,
    /// How they are laid out for the next linear, n a multiple of [`PANEL`]; else as rows.
    pub pack: Option<Pack>,
}

/// Rows from which on [`Then::by`] pays: for fewer, kernels take weights as they come by.
pub const BY_ROWS: usize = 64;

/// The same, for kernels.
pub struct After<'a> {
    then: Then<'a>,
    n: usize,
    rows: usize,
    /// Rows of a piece, where results are packed, how they are laid out, and the words of a panel of them.
    piece: usize,
    laid: Laid,
    unit: usize,
    ops: &'a Ops,
}

impl<'a> After<'a> {
    /// Of `n` outputs of so many rows. Panics where outputs that are to be packed are no whole panels.
    pub fn new(ops: &'a Ops, rows: usize, n: usize, then: &Then<'a>) -> After<'a> {
        let pack = then.pack.unwrap_or(Pack::F32);
        assert!(then.pack.is_none() || n.is_multiple_of(PANEL), "{n} outputs are no whole panels");
        let (piece, laid, unit) = (ops.piece_rows(rows), ops.laid(pack), ops.pack_panel_words(rows, pack));
        After { then: *then, n, rows, piece, laid, unit, ops }
    }

    /// Rows in all.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The other matrix.
    #[inline(always)]
    pub fn by(&self) -> Option<&'a Matrix<'a>> {
        self.then.by
    }

    /// The table whose kernels run.
    pub fn ops(&self) -> &'a Ops {
        self.ops
    }

    /// The outputs that `out` has room for.
    #[inline(always)]
    pub fn outputs(&self, out: &TileMut) -> Range<usize> {
        let cols = out.cols();
        match self.then.pack {
            None => cols,
            Some(_) => cols.start / self.unit * PANEL..cols.end / self.unit * PANEL,
        }
    }

    /// Takes the sums of `lanes` outputs from `first` on (a panel, but for the last) of rows from `r` on, all of one piece, and
    /// what they are multiplied `by`, if that has been computed too.
    #[inline(always)]
    pub fn finish<S: Simd>(
        &self,
        s: S,
        out: &mut TileMut,
        r: usize,
        first: usize,
        lanes: usize,
        sums: &mut [[f32; PANEL]],
        by: Option<&[[f32; PANEL]]>,
    ) {
        s.apart(Finish { after: self, out, r, first, lanes, sums, by });
    }

    /// What outputs from `first` on of row `r` are multiplied by: with `by`, row `i` of that.
    #[inline(always)]
    fn times<'b>(
        &'b self,
        by: Option<&'b [[f32; PANEL]]>,
        i: usize,
        [r, first]: [usize; 2],
    ) -> Option<&'b [f32]> {
        match by {
            Some(by) => Some(&by[i]),
            None => self.then.times.map(|times| &times[r * self.n + first..]),
        }
    }

    fn act(&self, sums: &mut [[f32; PANEL]]) {
        if let Some(act) = self.then.act {
            (self.ops.apply)(sums.as_flattened_mut(), act);
        }
    }

    /// To where results belong.
    #[inline(never)]
    fn put(&self, out: &mut TileMut, r: usize, first: usize, lanes: usize, sums: &[[f32; PANEL]]) {
        if self.then.pack.is_none() {
            let at = first - out.cols().start;
            for (i, sums) in sums.iter().enumerate() {
                out.row(r + i)[at..][..lanes].copy_from_slice(&sums[..lanes]);
            }
            return;
        }
        let mut rows = [&[0.0; BLOCK]; MOST];
        for (row, sums) in rows.iter_mut().zip(sums) {
            *row = sums;
        }
        let at = first / PANEL * self.unit - out.cols().start;
        let out = &mut out.row(r / self.piece)[at..][..self.unit];
        (self.ops.pack_block)(out, &rows[..sums.len()], r % self.piece, self.piece, self.laid);
    }
}

/// [`After::finish`], compiled once for a set.
struct Finish<'a, 'o> {
    after: &'a After<'a>,
    out: &'a mut TileMut<'o>,
    r: usize,
    first: usize,
    lanes: usize,
    sums: &'a mut [[f32; PANEL]],
    by: Option<&'a [[f32; PANEL]]>,
}

impl Finish<'_, '_> {
    /// Sums of a panel that ends early, which is rare.
    #[inline(never)]
    fn narrow(self) {
        let Finish { after, out, r, first, lanes, sums, by } = self;
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = (r + i) * after.n + first;
            let added = [after.then.bias.map(|x| &x[first..]), after.then.add.map(|x| &x[row..])];
            for x in added.into_iter().flatten() {
                sums[..lanes].iter_mut().zip(&x[..lanes]).for_each(|(sum, x)| *sum += x);
            }
        }
        after.act(sums);
        for (i, sums) in sums.iter_mut().enumerate() {
            if let Some(times) = after.times(by, i, [r + i, first]) {
                sums[..lanes].iter_mut().zip(&times[..lanes]).for_each(|(x, times)| *x *= times);
            }
        }
        after.put(out, r, first, lanes, sums);
    }
}

impl<S: Simd> Apart<S> for Finish<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        if self.lanes < PANEL {
            return self.narrow();
        }
        let Finish { after, out, r, first, sums, by, .. } = self;
        let then = &after.then;
        // What the next rows will want of this panel: pieces of rows, which no processor foresees.
        let next = r + sums.len()..after.rows.min(r + 2 * sums.len());
        for x in [then.add, then.times].into_iter().flatten() {
            for row in next.clone() {
                let at = x.as_ptr().wrapping_add(row * after.n + first);
                s.prefetch_first(at.cast());
                s.prefetch_first(at.wrapping_add(LANES).cast());
            }
        }
        // The usual: nothing but sums.
        let plain = then.act.is_none() && then.times.is_none() && by.is_none() && then.pack.is_none();
        let at = if plain { first - out.cols().start } else { 0 };
        let some = if plain || then.bias.is_some() || then.add.is_some() { sums.len() } else { 0 };
        for (i, sums) in sums.iter_mut().enumerate().take(some) {
            let [mut low, mut high] = [s.load(sums), s.load(&sums[LANES..])];
            if let Some(bias) = then.bias {
                let bias = &bias[first..][..PANEL];
                (low, high) = (s.add(low, s.load(bias)), s.add(high, s.load(&bias[LANES..])));
            }
            if let Some(add) = then.add {
                let add = &add[(r + i) * after.n + first..][..PANEL];
                (low, high) = (s.add(low, s.load(add)), s.add(high, s.load(&add[LANES..])));
            }
            let to = if plain { &mut out.row(r + i)[at..][..PANEL] } else { &mut sums[..] };
            s.store(low, to);
            s.store(high, &mut to[LANES..]);
        }
        if plain {
            return;
        }
        after.act(sums);
        for (i, sums) in sums.iter_mut().enumerate() {
            let Some(times) = after.times(by, i, [r + i, first]) else { break };
            let (low, high) = sums.split_at_mut(LANES);
            s.store(s.mul(s.load(low), s.load(times)), low);
            s.store(s.mul(s.load(high), s.load(&times[LANES..])), high);
        }
        after.put(out, r, first, PANEL, sums);
    }
}
