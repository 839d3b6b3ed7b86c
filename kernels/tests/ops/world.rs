//! What the tests of attention look at: sequences in pages, ways to attend to them, and the specification beside it.

use crate::{Numbers, U, close, wide};
use half::{bf16, f16};
use kernels::attention::{
    AttendArgs, AttendShape, Bias, Cache, PAGE, Row, append, cut, head_words, merge_cut, part_words, parts,
    scratch_words, splits,
};
use kernels::{Cut, Ops, Pages, StateMut, StateRef, TileMut, reference};

/// Sequences, every position of which has a key and a value.
pub(crate) struct World {
    pub(crate) shape: AttendShape,
    pub(crate) pages: Pages,
    /// Page numbers of all sequences, and where each begins.
    pub(crate) table: Vec<u32>,
    pub(crate) seqs: Vec<u32>,
    /// Positions of each sequence.
    pub(crate) lens: Vec<u32>,
    /// `[len, kv_heads * dim]` of each sequence.
    pub(crate) keys: Vec<Vec<f32>>,
    pub(crate) values: Vec<Vec<f32>>,
    /// `[len, heads * dim]`
    pub(crate) queries: Vec<Vec<f32>>,
}

/// Plain causal attention over `[pages, seqs, lens]`.
fn args<'a>(shape: AttendShape, rows: &'a [Row], [pages, seqs, lens]: [&'a [u32]; 3]) -> AttendArgs<'a> {
    let (scale, cap, bias, window, causal) = (0.7, None, Bias::None, None, true);
    AttendArgs { shape, scale, cap, bias, window, causal, rows, pages, seqs, lens }
}

impl World {
    /// Pages of garbage (every bit set: NaN in each type), taken from the far end of the pool.
    pub(crate) fn new(shape: AttendShape, lens: &[usize], seed: u64) -> World {
        let mut numbers = Numbers::new(seed);
        let mut pages = Pages::new(1, shape.kv_heads * head_words(shape.dim, shape.cache));
        let (mut table, mut seqs) = (Vec::new(), Vec::new());
        for len in lens {
            seqs.push(table.len() as u32);
            table.extend((0..len.div_ceil(PAGE)).map(|_| pages.alloc().unwrap()));
        }
        for id in &table {
            pages.words_mut(*id).unwrap().fill(f32::from_bits(u32::MAX));
        }
        table.reverse(); // pages of a sequence neither rise nor lie together
        let mut vecs =
            |width: usize| lens.iter().map(|len| numbers.vec(len * width, 1.5)).collect::<Vec<_>>();
        let (kv, q) = (shape.kv_heads * shape.dim, shape.heads * shape.dim);
        let (keys, values, queries) = (vecs(kv), vecs(kv), vecs(q));
        let lens = lens.iter().map(|len| *len as u32).collect();
        World { shape, pages, table, seqs, lens, keys, values, queries }
    }

    pub(crate) fn args<'a>(&'a self, rows: &'a [Row], window: Option<u32>, causal: bool) -> AttendArgs<'a> {
        let tables = [&self.table[..], &self.seqs, &self.lens];
        AttendArgs { window, causal, ..args(self.shape, rows, tables) }
    }

    /// Of each row its numbers of `heads` heads.
    pub(crate) fn gather(&self, from: &[Vec<f32>], heads: usize, rows: &[Row]) -> Vec<f32> {
        let width = heads * self.shape.dim;
        rows.iter().flat_map(|r| from[r.seq as usize][r.pos as usize * width..][..width].to_vec()).collect()
    }

    pub(crate) fn append(&mut self, rows: &[Row]) {
        let kv_heads = self.shape.kv_heads;
        let (k, v) = (self.gather(&self.keys, kv_heads, rows), self.gather(&self.values, kv_heads, rows));
        let (table, seqs, lens) = (self.table.clone(), self.seqs.clone(), self.lens.clone());
        let args = args(self.shape, rows, [&table, &seqs, &lens]);
        let words = head_words(self.shape.dim, self.shape.cache);
        append(&mut StateMut::whole(&mut self.pages, 0, words), &k, &v, &args);
    }

    /// Outputs `[rows, heads * dim]`, cut as given (or as is best) among `of` workers, over scratch full of NaN.
    pub(crate) fn attend(&self, ops: &Ops, args: &AttendArgs, cut: Option<Cut>, of: usize) -> Vec<f32> {
        self.attend_by(ops, args, &self.gather(&self.queries, self.shape.heads, args.rows), cut, of)
    }

    /// The same by queries `q [rows, heads * dim]`.
    pub(crate) fn attend_by(
        &self,
        ops: &Ops,
        args: &AttendArgs,
        q: &[f32],
        cut: Option<Cut>,
        of: usize,
    ) -> Vec<f32> {
        let (rows, cols) = (args.rows.len(), self.shape.heads * self.shape.dim);
        let cut = cut.unwrap_or_else(|| kernels::attention::cut(&self.shape, rows, false));
        let mut out = vec![f32::NAN; rows * cols];
        for worker in 0..of {
            let mut scratch = vec![f32::NAN; scratch_words(&self.shape)];
            let mut tile = TileMut::part(&mut out, rows, cols, cut, worker, of);
            (ops.attend)(&mut tile, q, &StateRef::whole(&self.pages, 0), args, false, &mut scratch);
        }
        out
    }

    /// The same, cut along the keys among `of` workers, over parts full of NaN.
    pub(crate) fn attend_split(&self, ops: &Ops, args: &AttendArgs, of: usize) -> Vec<f32> {
        let (rows, heads, dim) = (args.rows.len(), self.shape.heads, self.shape.dim);
        assert!(splits(&self.shape, rows), "scratch is sized for no more");
        let longest = self.lens.iter().max().map_or(0, |len| *len as usize);
        let sizes = (parts(longest) * rows, heads * part_words(dim));
        let (mut kept, q) = (vec![f32::NAN; sizes.0 * sizes.1], self.gather(&self.queries, heads, args.rows));
        for worker in 0..of {
            let mut scratch = vec![f32::NAN; scratch_words(&self.shape)];
            let cut = cut(&self.shape, rows, true);
            let mut tile = TileMut::part(&mut kept, sizes.0, sizes.1, cut, worker, of);
            (ops.attend)(&mut tile, &q, &StateRef::whole(&self.pages, 0), args, true, &mut scratch);
        }
        let mut out = vec![f32::NAN; rows * heads * dim];
        for worker in 0..of {
            let mut tile = TileMut::part(&mut out, rows, heads * dim, merge_cut(&self.shape), worker, of);
            (ops.merge)(&mut tile, &kept, args);
        }
        out
    }

    /// `x [positions, kv_heads * dim]` as the cache keeps it.
    pub(crate) fn rounded(&self, x: &[f32]) -> Vec<f64> {
        let rounded = |x: &[f32]| -> Vec<f64> {
            // Of 8 bits: the scale rounds to f32, and so do the quotients, before they become integers.
            let scale = x.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
            let round = |x: &f32| match self.shape.cache {
                Cache::F32 => f64::from(*x),
                Cache::F16 => f64::from(f16::from_f32(*x).to_f32()),
                Cache::BF16 => f64::from(bf16::from_f32(*x).to_f32()),
                Cache::Q8 => f64::from((x / scale).round_ties_even()) * f64::from(scale),
            };
            x.iter().map(round).collect()
        };
        x.chunks(self.shape.dim).flat_map(rounded).collect()
    }

    /// One head of one sequence's keys or values.
    fn head(&self, from: &[f32], kv: usize) -> Vec<f64> {
        let (dim, width) = (self.shape.dim, self.shape.kv_heads * self.shape.dim);
        self.rounded(from).chunks(width).flat_map(|row| row[kv * dim..(kv + 1) * dim].to_vec()).collect()
    }

    /// Against the specification, each element within its own bound.
    pub(crate) fn check(&self, got: &[f32], args: &AttendArgs) {
        let group = self.shape.heads / self.shape.kv_heads;
        for (seq, keys) in self.keys.iter().enumerate() {
            for kv in 0..self.shape.kv_heads {
                let (k, v) = (self.head(keys, kv), self.head(&self.values[seq], kv));
                for h in kv * group..(kv + 1) * group {
                    self.check_head(got, args, [seq, h], &k, &v);
                }
            }
        }
    }

    fn check_head(&self, got: &[f32], args: &AttendArgs, [seq, h]: [usize; 2], k: &[f64], v: &[f64]) {
        let (dim, heads, scale) = (self.shape.dim, self.shape.heads, f64::from(args.scale));
        let q = wide(&self.gather(&self.queries, heads, args.rows));
        let sizes: Vec<f64> = v.iter().map(|v| v.abs()).collect();
        let cap = args.cap.map(f64::from);
        let own = args.rows.iter().enumerate().filter(|(_, row)| row.seq as usize == seq);
        for (r, row) in own {
            let (pos, len) = (row.pos as usize, self.lens[seq] as usize);
            let seen = reference::seen(pos, len, args.causal, args.window.map(|w| w as usize));
            let bias = |at: usize| bias_of(args.bias, heads, h, pos, at);
            let at = (r * heads + h) * dim;
            let q = &q[at..at + dim];
            let want = reference::attend(q, k, v, seen.clone(), scale, cap, bias);
            let size = reference::attend(q, k, &sizes, seen.clone(), scale, cap, bias);
            let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| (q * k).abs()).sum::<f64>();
            let far = scale * k[seen.start * dim..seen.end * dim].chunks(dim).map(dot).fold(0.0, f64::max);
            let most = seen.clone().map(|at| bias(at).abs()).fold(0.0, f64::max);
            // A score is a chain of dim products and a scaling; relative to the maximum, whose own error cancels in the
            // quotient, it rounds again. A cap makes errors smaller and adds a quotient, tanh (3 ULP) and a product. A
            // bias rounds the sum, and what is relative to the maximum is larger by it. An error in a score is a relative
            // one of its weight, twice: above and below the line. Then exp (2 ULP), a chain of at most PAGE weights, and
            // a fold per chunk and one per part. Scales of keys and values round a score and a weight once more.
            let folds = 2.0 * (seen.len() / PAGE + 2) as f64;
            let score = far * (dim as f64 + 5.0 + if cap.is_some() { 8.0 } else { 0.0 }) + 5.0 * most;
            let off = 2.0 * U * (score + 5.0 + PAGE as f64 + 8.0 * folds);
            close(
                &got[at..at + dim],
                &want,
                |i| off * size[i],
                &format!("{:?}, row {r}, head {h}, cap {cap:?}", self.shape),
            );
        }
    }
}

/// What is added to the score of the key at `key`, for a query at `pos`.
pub(crate) fn bias_of(bias: Bias, heads: usize, head: usize, pos: usize, key: usize) -> f64 {
    let distance = key as i64 - pos as i64;
    match bias {
        Bias::None => 0.0,
        Bias::Slopes(slopes) => f64::from(slopes[head]) * distance as f64,
        Bias::Positions { table, .. } => f64::from(table[head * (table.len() / heads) + key]),
        Bias::Distance { table, far } => {
            let (row, far) = (table.len() / heads, far as i64);
            let middle = (row / 2) as i64;
            f64::from(table[head * row + (middle + distance.clamp(-far, far)) as usize])
        }
    }
}

pub(crate) fn rows_of(seq: u32, positions: std::ops::Range<usize>) -> Vec<Row> {
    positions.map(|pos| Row { seq, pos: pos as u32 }).collect()
}

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (3, 1, 7), (4, 2, 16), (9, 3, 64), (7, 1, 80), (2, 2, 33), (5, 5, 48), (8, 1, 256)];

pub(crate) fn shapes() -> impl Iterator<Item = AttendShape> {
    SHAPES.into_iter().flat_map(move |(heads, kv_heads, dim)| {
        Cache::ALL.into_iter().map(move |cache| AttendShape { heads, kv_heads, dim, cache })
    })
}
