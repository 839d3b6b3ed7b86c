//! Floor 0: one panel of outputs and a run of its steps, which the rows of activations meet tile by tile. Knows no matrices.

use super::elem::{Elem, parts};
use super::{After, PANEL, tile};
use crate::plan::TileMut;
use crate::simd::{Apart, Simd};
use std::marker::PhantomData;
use std::ops::Range;

/// Tiles that ask for what is next, at most.
const ASKING: usize = 4;

/// Where sums go.
pub struct Sink<'a, 'o> {
    pub out: &'a mut TileMut<'o>,
    /// Those of the rows of a run, with garbage in them before the first: [`SUMS`](super::SUMS) words; or of a tile, where
    /// they stay in `out`.
    pub sums: &'a mut [[f32; PANEL]],
}

impl Sink<'_, '_> {
    /// The sums of `M` rows from row `at` of a run on.
    #[inline(always)]
    pub fn of<const M: usize>(&mut self, at: usize) -> &mut [[f32; PANEL]; M] {
        self.sums[at..].first_chunk_mut().expect("sums of each row")
    }
}

/// One panel of outputs and a run of its steps, which some rows meet.
pub struct Run<'a> {
    /// First output, and outputs that exist.
    pub first: usize,
    pub lanes: usize,
    pub rows: Range<usize>,
    /// Words of a packed row of activations.
    pub words: usize,
    pub steps: Range<usize>,
    /// Whether sums begin with what `out` holds, and not with zero.
    pub grows: bool,
    /// Rows of `out` before the first, where the sums stay there between runs; else they stay in the sink.
    pub home: Option<usize>,
    /// Whether the sums end here.
    pub last: bool,
    /// What of the weights is read after this, to be brought near by the first tiles; nothing where that is not known.
    pub next: &'a [u8],
    /// What the sums of each row are multiplied by, where [`Then::by`](super::Then::by) has been computed.
    pub by: Option<&'a [[f32; PANEL]]>,
    pub after: &'a After<'a>,
}

impl Run<'_> {
    /// The same run where every step has become several.
    #[inline(always)]
    pub fn scaled(&self, parts: usize) -> Self {
        Run { steps: self.steps.start * parts..self.steps.end * parts, rows: self.rows.clone(), ..*self }
    }

    /// All rows, tile by tile.
    #[inline(always)]
    fn tiles<S: Simd, E: Elem>(&self, s: S, to: &mut Sink, panel: &[u8], x: &[f32]) {
        let stride = if self.after.rows() == 1 { 1 } else { tile::rows::<S>() };
        let (parts, mut r) = (parts::<S, E>(), self.rows.start);
        while r < self.rows.end {
            let m = stride.min(self.rows.end - r);
            let x = &x[r * self.words..][..self.words * stride];
            let x = &x[self.steps.start * parts * stride..self.steps.end * parts * stride];
            self.load(to, r, m);
            self.some_rows::<S, E>(s, to, panel, x, [r, m, stride]);
            r += m;
        }
    }

    /// A tile of `m` rows from row `r`, packed with `stride`. The next larger width that is compiled takes them: the rows
    /// beyond are computed from whatever the packed piece holds there, and dropped.
    #[inline(always)]
    fn some_rows<S: Simd, E: Elem>(
        &self,
        s: S,
        to: &mut Sink,
        panel: &[u8],
        x: &[f32],
        [r, m, stride]: [usize; 3],
    ) {
        let (fresh, next) = (!self.goes_on(), self.next_part(r, stride));
        macro_rules! tiles {
            ($($m:literal)*) => {
                match m {
                    $(..=$m => {
                        let sums = to.of(self.place(r));
                        if $m > tile::ALONE && !next.is_empty() {
                            tile::tile::<S, E, $m, true>(s, sums, panel, x, stride, fresh, next);
                        } else {
                            tile::tile::<S, E, $m, false>(s, sums, panel, x, stride, fresh, &[]);
                        }
                    })*
                    _ => unreachable!("a tile of {m} rows"),
                }
            };
        }
        // A constant block, so that the widths of the other instruction sets are not even compiled.
        if const { S::REGISTERS >= 32 } {
            tiles!(1 2 4 8 14);
        } else if const { S::REGISTERS >= 16 } {
            tiles!(1 2 3 4 6);
        } else {
            tiles!(1);
        }
        self.finish(s, to, r, m);
    }

    /// What the tile from row `r` on asks for, of tiles of `stride` rows: the first few share what is next, so that memory is
    /// never asked for more than it gives meanwhile.
    #[inline(always)]
    fn next_part(&self, r: usize, stride: usize) -> &[u8] {
        let (tile, rest) = ((r - self.rows.start) / stride, self.rows.len() % stride);
        let asking = (self.rows.len() / stride + usize::from(rest > tile::ALONE)).min(ASKING);
        if tile >= asking {
            return &[];
        }
        let part = self.next.len().div_ceil(asking);
        self.next.chunks(part.max(1)).nth(tile).unwrap_or(&[])
    }

    /// Whether there are sums to begin with.
    fn goes_on(&self) -> bool {
        self.grows || self.steps.start > 0
    }

    /// Where the sums of row `r` are in the sink.
    #[inline(always)]
    fn place(&self, r: usize) -> usize {
        if self.home.is_some() { 0 } else { r - self.rows.start }
    }

    /// The sums so far of `m` rows from row `r` on, where they stay in `out`.
    #[inline(never)]
    fn load(&self, to: &mut Sink, r: usize, m: usize) {
        if let (Some(above), true) = (self.home, self.goes_on()) {
            let at = self.first - to.out.cols().start;
            for (i, sums) in to.sums.iter_mut().enumerate().take(m) {
                sums[..self.lanes].copy_from_slice(&to.out.row(above + r + i)[at..][..self.lanes]);
            }
        }
    }

    /// Finishes the sums of `m` rows from row `r` on, where they end here; or brings them home.
    #[inline(never)]
    pub fn finish<S: Simd>(&self, s: S, to: &mut Sink, r: usize, m: usize) {
        let (above, sums) = (self.home.unwrap_or(0), &mut to.sums[self.place(r)..][..m]);
        if self.last {
            let by = self.by.map(|by| &by[self.place(r)..][..m]);
            self.after.finish(s, to.out, above + r, self.first, self.lanes, sums, by);
        } else if self.home.is_some() {
            let at = self.first - to.out.cols().start;
            for (i, sums) in sums.iter().enumerate() {
                to.out.row(above + r + i)[at..][..self.lanes].copy_from_slice(&sums[..self.lanes]);
            }
        }
    }
}

/// [`Run::tiles`], compiled once for an element type: several kinds of weights become f32 first.
pub struct Tiles<'a, 's, 'o, E> {
    run: &'a Run<'a>,
    to: &'a mut Sink<'s, 'o>,
    panel: &'a [u8],
    x: &'a [f32],
    of: PhantomData<E>,
}

impl<'a, 's, 'o, E> Tiles<'a, 's, 'o, E> {
    pub fn new(run: &'a Run<'a>, to: &'a mut Sink<'s, 'o>, panel: &'a [u8], x: &'a [f32]) -> Self {
        Tiles { run, to, panel, x, of: PhantomData }
    }
}

impl<S: Simd, E: Elem> Apart<S> for Tiles<'_, '_, '_, E> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        self.run.tiles::<S, E>(s, self.to, self.panel, self.x);
    }
}
