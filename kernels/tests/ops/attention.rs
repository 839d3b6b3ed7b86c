//! Attention: masks, windows, caches, pages of garbage, and all the ways the same queries can be computed together.

use crate::{Numbers, U, bits, close, isas, wide};
use half::{bf16, f16};
use kernels::attention::{
    AttendArgs, AttendShape, Bias, Cache, PAGE, Row, append, cut, head_words, merge_cut, part_words, parts,
    scratch_words, splits,
};
use kernels::{Cut, Ops, Pages, StateMut, StateRef, TileMut, reference};

/// Sequences, every position of which has a key and a value.
struct World {
    shape: AttendShape,
    pages: Pages,
    /// Page numbers of all sequences, and where each begins.
    table: Vec<u32>,
    seqs: Vec<u32>,
    /// Positions of each sequence.
    lens: Vec<u32>,
    /// `[len, kv_heads * dim]` of each sequence.
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
    /// `[len, heads * dim]`
    queries: Vec<Vec<f32>>,
}

/// Plain causal attention over `[pages, seqs, lens]`.
fn args<'a>(shape: AttendShape, rows: &'a [Row], [pages, seqs, lens]: [&'a [u32]; 3]) -> AttendArgs<'a> {
    let (scale, cap, bias, window, causal) = (0.7, None, Bias::None, None, true);
    AttendArgs { shape, scale, cap, bias, window, causal, rows, pages, seqs, lens }
}

impl World {
    /// Pages of garbage (every bit set: NaN in each type), taken from the far end of the pool.
    fn new(shape: AttendShape, lens: &[usize], seed: u64) -> World {
        let mut numbers = Numbers::new(seed);
        let mut pages = Pages::new(1, shape.kv_heads * head_words(shape.dim, shape.cache));
        let (mut table, mut seqs, sizes) = (Vec::new(), Vec::new(), lens);
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
        let lens = sizes.iter().map(|len| *len as u32).collect();
        World { shape, pages, table, seqs, lens, keys, values, queries }
    }

    fn args<'a>(&'a self, rows: &'a [Row], window: Option<u32>, causal: bool) -> AttendArgs<'a> {
        let tables = [&self.table[..], &self.seqs, &self.lens];
        AttendArgs { window, causal, ..args(self.shape, rows, tables) }
    }

    /// Of each row its numbers of `heads` heads.
    fn gather(&self, from: &[Vec<f32>], heads: usize, rows: &[Row]) -> Vec<f32> {
        let width = heads * self.shape.dim;
        rows.iter().flat_map(|r| from[r.seq as usize][r.pos as usize * width..][..width].to_vec()).collect()
    }

    fn append(&mut self, rows: &[Row]) {
        let kv_heads = self.shape.kv_heads;
        let (k, v) = (self.gather(&self.keys, kv_heads, rows), self.gather(&self.values, kv_heads, rows));
        let (table, seqs, lens) = (self.table.clone(), self.seqs.clone(), self.lens.clone());
        let args = args(self.shape, rows, [&table, &seqs, &lens]);
        let words = head_words(self.shape.dim, self.shape.cache);
        append(&mut StateMut::whole(&mut self.pages, 0, words), &k, &v, &args);
    }

    /// Outputs `[rows, heads * dim]`, cut as given (or as is best) among `of` workers, over scratch full of NaN.
    fn attend(&self, ops: &Ops, args: &AttendArgs, cut: Option<Cut>, of: usize) -> Vec<f32> {
        let (rows, cols) = (args.rows.len(), self.shape.heads * self.shape.dim);
        let cut = cut.unwrap_or_else(|| kernels::attention::cut(&self.shape, rows, false));
        let (mut out, q) =
            (vec![f32::NAN; rows * cols], self.gather(&self.queries, self.shape.heads, args.rows));
        for worker in 0..of {
            let mut scratch = vec![f32::NAN; scratch_words(&self.shape)];
            let mut tile = TileMut::part(&mut out, rows, cols, cut, worker, of);
            (ops.attend)(&mut tile, &q, &StateRef::whole(&self.pages, 0), args, false, &mut scratch);
        }
        out
    }

    /// The same, cut along the keys among `of` workers, over parts full of NaN.
    fn attend_split(&self, ops: &Ops, args: &AttendArgs, of: usize) -> Vec<f32> {
        let (rows, heads, dim) = (args.rows.len(), self.shape.heads, self.shape.dim);
        assert!(splits(&self.shape, rows), "scratch is sized for no more");
        let longest = args.rows.iter().map(|row| row.pos as usize + 1).max().unwrap_or(0);
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
    fn rounded(&self, x: &[f32]) -> Vec<f64> {
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
    fn check(&self, got: &[f32], args: &AttendArgs) {
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
        let own = || args.rows.iter().enumerate().filter(|(_, row)| row.seq as usize == seq);
        let len = own().map(|(_, row)| row.pos as usize + 1).max().unwrap_or(0);
        for (r, row) in own() {
            let pos = row.pos as usize;
            let seen = reference::seen(pos, len, args.causal, args.window.map(|w| w as usize));
            let at = (r * heads + h) * dim;
            let q = &q[at..at + dim];
            let want = reference::attend(q, k, v, seen.clone(), scale, None, |_| 0.0);
            let size = reference::attend(q, k, &sizes, seen.clone(), scale, None, |_| 0.0);
            let dot = |k: &[f64]| q.iter().zip(k).map(|(q, k)| (q * k).abs()).sum::<f64>();
            let far = scale * k[seen.start * dim..seen.end * dim].chunks(dim).map(dot).fold(0.0, f64::max);
            // A score is a chain of dim products and a scaling; relative to the maximum, whose own error cancels in the
            // quotient, it rounds again. An error in a score is a relative one of its weight, twice: above and below
            // the line. Then exp (2 ULP), a chain of at most PAGE weights, and a fold per chunk and one per part. Scales
            // of keys and values round a score and a weight once more.
            let folds = 2.0 * (seen.len() / PAGE + 2) as f64;
            let off = 2.0 * U * (far * (dim as f64 + 5.0) + 5.0 + PAGE as f64 + 8.0 * folds);
            close(
                &got[at..at + dim],
                &want,
                |i| off * size[i],
                &format!("{:?}, row {r}, head {h}", self.shape),
            );
        }
    }
}

fn rows_of(seq: u32, positions: std::ops::Range<usize>) -> Vec<Row> {
    positions.map(|pos| Row { seq, pos: pos as u32 }).collect()
}

const SHAPES: [(usize, usize, usize); 8] =
    [(1, 1, 1), (3, 1, 7), (4, 2, 16), (9, 3, 64), (7, 1, 80), (2, 2, 33), (5, 5, 48), (8, 1, 256)];

fn shapes() -> impl Iterator<Item = AttendShape> {
    SHAPES.into_iter().flat_map(move |(heads, kv_heads, dim)| {
        Cache::ALL.into_iter().map(move |cache| AttendShape { heads, kv_heads, dim, cache })
    })
}

#[test]
fn attention_is_what_the_paper_says() {
    for shape in shapes() {
        let len = if shape.dim > 64 { 70 } else { 150 };
        let mut world = World::new(shape, &[len], 1);
        let all = rows_of(0, 0..len);
        world.append(&all);
        for (window, causal) in [(None, true), (Some(1), true), (Some(67), true), (None, false)] {
            let args = world.args(&all, window, causal);
            let got = world.attend(Ops::best(), &args, None, 1);
            world.check(&got, &args);
        }
    }
}

#[test]
fn long_contexts_are_what_the_paper_says() {
    for cache in Cache::ALL {
        let shape = AttendShape { heads: 3, kv_heads: 1, dim: 16, cache };
        let mut world = World::new(shape, &[2300], 9);
        world.append(&rows_of(0, 0..2300));
        for window in [None, Some(1200)] {
            let rows = rows_of(0, 2293..2300);
            let args = world.args(&rows, window, true);
            let got = world.attend(Ops::best(), &args, None, 1);
            world.check(&got, &args);
        }
    }
}

#[test]
fn cutting_along_the_keys_changes_no_bit() {
    for shape in shapes().filter(|shape| shape.heads > 2) {
        // Parts of one chunk and of two; a sequence that has only the first; windows that begin within a part.
        let mut world = World::new(shape, &[1300, 3], 10);
        let all = [rows_of(0, 0..1300), rows_of(1, 0..3)].concat();
        world.append(&all);
        for window in [None, Some(1), Some(64), Some(250), Some(1101)] {
            let few = [
                rows_of(0, 1299..1300),
                rows_of(0, 1022..1026),
                [rows_of(0, 1150..1152), rows_of(1, 1..2)].concat(),
            ];
            for rows in few.iter().filter(|rows| splits(&shape, rows.len())) {
                let args = world.args(rows, window, true);
                let want = world.attend(isas()[0], &args, None, 1);
                assert!(want.iter().all(|x| x.is_finite()));
                for ops in isas() {
                    for of in [1, 2, 5] {
                        let got = world.attend_split(ops, &args, of);
                        assert!(
                            bits(&got) == bits(&want),
                            "{shape:?} {window:?} {} {rows:?} {of}",
                            ops.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_not_finite_stays_so_in_eight_bits() {
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 4, cache: Cache::Q8 };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for key in [false, true] {
            let mut world = World::new(shape, &[3], 11);
            let spoilt = if key { &mut world.keys } else { &mut world.values };
            spoilt[0][5] = bad;
            let rows = rows_of(0, 0..3);
            world.append(&rows);
            let got = world.attend(Ops::best(), &world.args(&rows, None, true), None, 1);
            assert!(got[..4].iter().all(|x| x.is_finite()), "the row before");
            assert!(got[4..].iter().all(|x| x.is_nan()), "{bad} {key}: {got:?}");
        }
    }
}

#[test]
fn tiny_and_zero_vectors_survive_eight_bits() {
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 16, cache: Cache::Q8 };
    let mut world = World::new(shape, &[3], 12);
    world.keys[0].fill(0.0);
    world.values[0].fill(0.0);
    world.values[0][32..].fill(f32::from_bits(1)); // its scale is zero
    let rows = rows_of(0, 0..3);
    world.append(&rows);
    let got = world.attend(Ops::best(), &world.args(&rows, None, true), None, 1);
    assert!(got.iter().all(|x| *x == 0.0), "{got:?}");
}

#[test]
fn nothing_but_the_numbers_decides_the_bits() {
    for shape in shapes().filter(|shape| shape.cache == Cache::F32 || shape.dim % 16 != 0) {
        let mut world = World::new(shape, &[131, 5, 64], 2);
        let rows: Vec<Row> = [rows_of(0, 0..131), rows_of(1, 0..5), rows_of(2, 0..64)].concat();
        world.append(&rows);
        let cols = shape.heads * shape.dim;
        for (window, causal) in [(None, true), (Some(3), true), (Some(66), true), (None, false)] {
            let args = world.args(&rows, window, causal);
            let all = world.attend(isas()[0], &args, None, 1);
            for ops in isas() {
                let group = shape.heads / shape.kv_heads;
                for (rows, heads, of) in
                    [(1, 1, 7), (7, 1, 3), (64, 1, 2), (12, group, 2), (5, shape.heads, 1)]
                {
                    let cut = Cut::Blocks { rows, cols: heads * shape.dim };
                    let got = world.attend(ops, &args, Some(cut), of);
                    assert!(bits(&got) == bits(&all), "{shape:?} {window:?} {} {cut:?} {of}", ops.name());
                }
                if !causal {
                    continue; // a row alone would be its whole sequence
                }
                for r in [0, 63, 64, 130, 133, 199] {
                    let alone = world.attend(ops, &world.args(&rows[r..=r], window, causal), None, 1);
                    assert!(
                        bits(&alone) == bits(&all[r * cols..][..cols]),
                        "{shape:?} {window:?} row {r} alone"
                    );
                }
            }
        }
    }
}

#[test]
fn step_by_step_is_prefill_and_garbage_never_leaks() {
    for shape in shapes().filter(|shape| shape.dim <= 80) {
        for window in [None, Some(40)] {
            let (len, seq) = (140, 0);
            let rows = rows_of(seq, 0..len);
            let mut whole = World::new(shape, &[len], 3);
            whole.append(&rows);
            let want = whole.attend(Ops::best(), &whole.args(&rows, window, true), None, 2);
            assert!(want.iter().all(|x| x.is_finite()));
            // Steps of one, then one of many: every page after the last row is still garbage.
            let (mut world, mut got) = (World::new(shape, &[len], 3), Vec::new());
            for step in (0..70).map(|p| p..p + 1).chain([70..100, 100..101, 101..140]) {
                let rows = rows_of(seq, step);
                world.append(&rows);
                got.extend(world.attend(Ops::best(), &world.args(&rows, window, true), None, 1));
            }
            assert!(bits(&got) == bits(&want), "{shape:?} {window:?}");
        }
    }
}

#[test]
fn a_later_value_reaches_no_earlier_row() {
    let shape = AttendShape { heads: 3, kv_heads: 1, dim: 16, cache: Cache::F32 };
    let rows = rows_of(0, 0..70);
    // Blocks of five rows, panels of five queries: rows 41 and 42 share one, and so do 63 and 64, of two pages.
    let cut = Cut::Blocks { rows: 5, cols: 48 };
    for (bad, from) in [f32::NAN, f32::INFINITY, -1.0].into_iter().flat_map(|bad| [(bad, 42), (bad, 64)]) {
        let mut world = World::new(shape, &[70], 4);
        world.values[0][from * 16..].fill(bad);
        world.append(&rows);
        for ops in isas() {
            let all = world.attend(ops, &world.args(&rows, None, true), Some(cut), 1);
            for r in [20, 40, 41, 61, 63].into_iter().filter(|r| *r < from) {
                let alone = world.attend(ops, &world.args(&rows[r..=r], None, true), None, 1);
                assert_eq!(bits(&all[r * 48..][..48]), bits(&alone), "row {r}, {bad} from {from} on");
                assert!(alone.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn equal_scores_average_exactly() {
    // exp(0) is exactly 1: values that are all 3 come out as 3, whatever their number.
    let shape = AttendShape { heads: 2, kv_heads: 2, dim: 8, cache: Cache::BF16 };
    let mut world = World::new(shape, &[200], 5);
    world.keys[0].fill(1.0);
    world.values[0].fill(3.0);
    let rows = rows_of(0, 0..200);
    world.append(&rows);
    for ops in isas() {
        let got = world.attend(ops, &world.args(&rows, None, true), None, 1);
        assert!(got.iter().all(|x| *x == 3.0));
    }
}

#[test]
fn infinite_scores_stay_where_they_are() {
    // All keys of the first page score -inf: it counts for nothing, and the second page decides.
    let shape = AttendShape { heads: 1, kv_heads: 1, dim: 2, cache: Cache::F32 };
    let mut world = World::new(shape, &[100], 6);
    world.queries[0].fill(1.0);
    world.keys[0][..2 * PAGE].fill(f32::NEG_INFINITY);
    let rows = rows_of(0, 0..100);
    world.append(&rows);
    for ops in isas() {
        let got = world.attend(ops, &world.args(&rows[99..], None, true), None, 1);
        assert!(got.iter().all(|x| x.is_finite() && *x != 0.0), "{got:?}");
    }
}

#[test]
fn workers_append_their_own_heads() {
    let shape = AttendShape { heads: 6, kv_heads: 3, dim: 5, cache: Cache::F16 };
    let mut world = World::new(shape, &[66], 7);
    world.append(&rows_of(0, 0..66));
    let (page, words) = (world.table[1] as usize, head_words(5, Cache::F16));
    let head = &world.pages.words(page as u32).unwrap()[2 * words..];
    let halves: Vec<f16> = head
        .iter()
        .flat_map(|w| [w.to_bits() as u16, (w.to_bits() >> 16) as u16])
        .map(f16::from_bits)
        .collect();
    let (keys, values) = halves.split_at(5 * PAGE);
    for d in 0..5 {
        let at = 65 * 15 + 10 + d;
        assert_eq!(keys[d * PAGE + 1], f16::from_f32(world.keys[0][at]));
        assert_eq!(values[5 + d], f16::from_f32(world.values[0][at]));
        assert!(keys[d * PAGE + 2].is_nan(), "slots without a position are left alone");
    }
}

#[test]
fn eight_bits_lie_as_documented() {
    let shape = AttendShape { heads: 2, kv_heads: 2, dim: 3, cache: Cache::Q8 };
    let mut world = World::new(shape, &[66], 13);
    world.append(&rows_of(0, 0..66));
    let words = head_words(3, Cache::Q8);
    assert_eq!(words * 4, 2 * 3 * PAGE + 2 * PAGE * 4);
    let head = &world.pages.words(world.table[1]).unwrap()[words..];
    let (bytes, scales) = head.split_at(words - 2 * PAGE);
    let bytes: Vec<i8> = bytes.iter().flat_map(|w| w.to_le_bytes()).map(|b| b as i8).collect();
    let (keys, values) = bytes.split_at(3 * PAGE);
    let [k, v] = [&world.keys[0], &world.values[0]].map(|x| &x[65 * 6 + 3..65 * 6 + 6]);
    for (x, scale) in [(k, scales[1]), (v, scales[PAGE + 1])] {
        let most = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        assert_eq!(scale, most / 127.0);
    }
    for d in 0..3 {
        assert_eq!(f32::from(keys[d * PAGE + 1]), (k[d] / scales[1]).round_ties_even());
        assert_eq!(f32::from(values[3 + d]), (v[d] / scales[PAGE + 1]).round_ties_even());
    }
    assert!(scales[2].is_nan(), "slots without a position are left alone");
}

#[test]
fn no_rows_are_fine() {
    for shape in shapes() {
        let world = World::new(shape, &[0], 8);
        assert!(world.attend(Ops::best(), &world.args(&[], None, true), None, 1).is_empty());
    }
}
