//! Gradients of attention: of queries, keys, values and biases, over ragged batches, masks, windows, caps, groups and
//! sources; against the specification, and bit for bit however the work is cut.

use crate::families::{crossed, slopes, steps, table};
use crate::world::{World, bias_of, rows_of};
use crate::{Numbers, Out, U, bits, close, isas, same_bits, same_bits_of, wide};
use kernels::attention::{
    AttendArgs, AttendShape, BackArgs, Bias, Cache, Kept, PAGE, Row, back_scratch_words, cut, dkv_cut,
    dq_cut, round_to, scratch_words, stat_cut,
};
use kernels::{Cut, Ops, StateRef, TileMut, reference};

/// A batch that attended to keys: to its own, or to those of sources.
struct Batch {
    world: World,
    rows: Vec<Row>,
    starts: Vec<u32>,
    key_starts: Vec<u32>,
    dout: Vec<f32>,
}

fn starts(lens: &[usize]) -> Vec<u32> {
    let ends = lens.iter().scan(0, |end, len| {
        *end += *len as u32;
        Some(*end)
    });
    [0].into_iter().chain(ends).collect()
}

impl Batch {
    /// Sequences of so many queries over sources of so many keys.
    fn new(shape: AttendShape, queries: &[usize], keys: &[usize]) -> Batch {
        let world = crossed(shape, keys, queries);
        let rows: Vec<Row> =
            queries.iter().enumerate().flat_map(|(seq, n)| rows_of(seq as u32, 0..*n)).collect();
        let dout = Numbers::new(31).vec(rows.len() * shape.heads * shape.dim, 1.0);
        Batch { world, rows, starts: starts(queries), key_starts: starts(keys), dout }
    }

    fn shape(&self) -> AttendShape {
        self.world.shape
    }

    /// Outputs and statistics, on every set, with the bits of attention that keeps none.
    fn forward(&self, args: &AttendArgs) -> [Vec<f32>; 2] {
        let (shape, rows) = (self.shape(), self.rows.len());
        let q = self.world.gather(&self.world.queries, shape.heads, &self.rows);
        let cut = cut(&shape, rows, false);
        let out = |cols: usize, cut: Cut| Out { rows, cols, cut, start: vec![f32::NAN; rows * cols] };
        let outs = [out(shape.heads * shape.dim, cut), out(shape.heads * 2, stat_cut(cut, shape.dim))];
        let got = same_bits_of(outs, |ops, [mut out, mut stat]| {
            let mut scratch = vec![f32::NAN; scratch_words(&shape)];
            let state = StateRef::whole(&self.world.pages, 0);
            (ops.back.attend_stat)(&mut out, &mut stat, &q, &state, args, &mut scratch);
        });
        assert_eq!(bits(&got[0]), bits(&self.world.attend(Ops::best(), args, None, 1)));
        got
    }

    /// Keys or values of all sequences, as the cache has them.
    fn rounded(&self, from: &[Vec<f32>]) -> Vec<f32> {
        let (shape, x) = (self.shape(), from.concat());
        let n = shape.kv_heads * shape.dim;
        let rows = x.len() / n;
        let got = same_bits(rows, n, Cut::Pieces(n), |_, out| round_to(out, &x, n, shape.dim, shape.cache));
        // The specification keeps more than f32 of a byte times its scale.
        assert_eq!(got, self.world.rounded(&x).iter().map(|x| *x as f32).collect::<Vec<f32>>());
        got
    }
}

/// What the specification says, and how far each element may be off.
struct Want {
    dq: [Vec<f64>; 2],
    dk: [Vec<f64>; 2],
    dv: [Vec<f64>; 2],
    dbias: [Vec<f64>; 2],
}

const FAR: usize = 20;

impl Batch {
    fn want(&self, args: &AttendArgs, k: &[f64], v: &[f64]) -> Want {
        let (shape, none) = (self.shape(), |n: usize| [vec![0.0; n], vec![0.0; n]]);
        let n = self.dout.len();
        let dbias = none(shape.heads * (2 * FAR + 1));
        let mut want = Want { dq: none(n), dk: none(k.len()), dv: none(k.len()), dbias };
        for (r, row) in self.rows.iter().enumerate() {
            for h in 0..shape.heads {
                self.add(&mut want, args, [k, v], r, *row, h);
            }
        }
        want
    }

    /// What row `r` and head `h` give.
    fn add(&self, want: &mut Want, args: &AttendArgs, [k, v]: [&[f64]; 2], r: usize, row: Row, h: usize) {
        let AttendShape { heads, kv_heads, dim, .. } = self.shape();
        let (seq, pos, kv) = (row.seq as usize, row.pos as usize, h / (heads / kv_heads));
        let first = self.key_starts[seq] as usize;
        let len = self.key_starts[seq + 1] as usize - first;
        let at = |j: usize| ((first + j) * kv_heads + kv) * dim;
        let head = |x: &[f64]| (0..len).flat_map(|j| x[at(j)..][..dim].to_vec()).collect::<Vec<f64>>();
        let seen = reference::seen(pos, len, args.causal, args.window.map(|w| w as usize));
        if seen.is_empty() {
            return;
        }
        let bias = |j: usize| bias_of(args.bias, heads, h, pos, j);
        let (scale, cap) = (f64::from(args.scale), args.cap.map(f64::from));
        let all = wide(&self.world.queries[seq]);
        let q = &all[(pos * heads + h) * dim..][..dim];
        let own = (r * heads + h) * dim;
        let dout = &wide(&self.dout)[own..own + dim];
        let (k, v) = (head(k), head(v));
        let got = reference::back::attend(dout, [q, &k, &v], seen.clone(), scale, cap, bias);
        // An error of a score is a relative one of its weight, twice, as on the way there; exp, quotients and folds
        // beside it. Then dot products of dim, and the delta, which has the error of the outputs.
        let size =
            |a: &[f64], b: &[f64], j: usize| (0..dim).map(|d| (a[d] * b[j * dim + d]).abs()).sum::<f64>();
        let far = seen.clone().map(|j| scale * size(q, &k, j)).fold(0.0, f64::max);
        let most = seen.clone().map(|j| bias(j).abs()).fold(0.0, f64::max);
        let folds = 2.0 * (seen.len() / PAGE + 2) as f64;
        let score = far * (dim as f64 + 5.0 + if cap.is_some() { 8.0 } else { 0.0 }) + 5.0 * most;
        let off = 2.0 * U * (score + 8.0 + PAGE as f64 + 8.0 * folds);
        let delta: f64 = seen.clone().map(|j| got.p[j - seen.start] * size(dout, &v, j)).sum();
        let chain = (self.rows.len() * heads + len + 4) as f64 * U;
        for (i, j) in seen.clone().enumerate() {
            let (p, dp) = (got.p[i], size(dout, &v, j));
            let g = p * (dp + delta);
            let of_g = g * (off + 5.0 * U + if cap.is_some() { 20.0 * U } else { 0.0 })
                + p * ((dim as f64 + 2.0) * U * dp + ((dim as f64 + 8.0) * U + off) * delta);
            for d in 0..dim {
                let (of_k, of_q, here) = (k[j * dim + d].abs(), q[d].abs(), at(j) + d);
                want.dq[0][own + d] += got.dscores[i] * k[j * dim + d];
                want.dq[1][own + d] += scale * of_k * (of_g + chain * g);
                want.dk[0][here] += got.dk[i * dim + d];
                want.dk[1][here] += scale * of_q * (of_g + chain * g);
                want.dv[0][here] += got.dv[i * dim + d];
                want.dv[1][here] += dout[d].abs() * p * (off + chain);
            }
            let distance = (j as i64 - pos as i64).clamp(-(FAR as i64), FAR as i64) + FAR as i64;
            let here = h * (2 * FAR + 1) + distance as usize;
            want.dbias[0][here] += got.dbias[i];
            want.dbias[1][here] += of_g + chain * g * PAGE as f64;
        }
    }

    /// All gradients, with the same bits however they are cut, against the specification.
    fn check(&self, args: &AttendArgs) {
        let (shape, [out, stat]) = (self.shape(), self.forward(args));
        let (rows, heads, cols) = (self.rows.len(), shape.heads, shape.heads * shape.dim);
        let delta = same_bits(rows, heads, Cut::Pieces(heads), |ops, delta| {
            (ops.back.attend_delta)(delta, &self.dout, &out, shape.dim);
        });
        let q = self.world.gather(&self.world.queries, heads, &self.rows);
        let (k, v) = (self.rounded(&self.world.keys), self.rounded(&self.world.values));
        let kept = Kept { q: &q, k: &k, v: &v, dout: &self.dout, stat: &stat, delta: &delta };
        let back = BackArgs {
            shape,
            scale: args.scale,
            cap: args.cap,
            bias: args.bias,
            window: args.window,
            causal: args.causal,
            starts: &self.starts,
            key_starts: &self.key_starts,
        };
        let scratch = || vec![f32::NAN; back_scratch_words(&shape)];
        let out = |rows: usize, cols: usize, cut| Out { rows, cols, cut, start: vec![f32::NAN; rows * cols] };
        let [dq] = same_bits_of([out(rows, cols, dq_cut(&shape, rows))], |ops, [mut dq]| {
            (ops.back.attend_dq)(&mut dq, &kept, &back, &mut scratch());
        });
        let (key_rows, width) = (k.len() / (shape.kv_heads * shape.dim), shape.kv_heads * shape.dim);
        let cut = dkv_cut(&shape, key_rows);
        let [dk, dv] = same_bits_of([(); 2].map(|()| out(key_rows, width, cut)), |ops, [mut dk, mut dv]| {
            (ops.back.attend_dkv)(&mut dk, &mut dv, &kept, &back, &mut scratch());
        });
        // Cut in another way.
        let ops = Ops::best();
        let [mut other_q, mut other_k, mut other_v] = [&dq, &dk, &dv].map(|x| vec![f32::NAN; x.len()]);
        let tile = |mem, rows, cols, cell| {
            TileMut::part(mem, rows, cols, Cut::Blocks { rows: 37, cols: cell }, 0, 1)
        };
        (ops.back.attend_dq)(&mut tile(&mut other_q, rows, cols, shape.dim), &kept, &back, &mut scratch());
        let (mut k_tile, mut v_tile) =
            (tile(&mut other_k, key_rows, width, width), tile(&mut other_v, key_rows, width, width));
        (ops.back.attend_dkv)(&mut k_tile, &mut v_tile, &kept, &back, &mut scratch());
        assert_eq!([other_q, other_k, other_v].map(|x| bits(&x)), [&dq, &dk, &dv].map(|x| bits(x)));
        let what = format!("{shape:?} {:?} {} {:?}", args.window, args.causal, args.cap);
        let want = self.want(args, &wide(&k), &wide(&v));
        close(&dq, &want.dq[0], |i| want.dq[1][i], &format!("dq {what}"));
        close(&dk, &want.dk[0], |i| want.dk[1][i], &format!("dk {what}"));
        close(&dv, &want.dv[0], |i| want.dv[1][i], &format!("dv {what}"));
        if matches!(args.bias, Bias::Distance { .. }) {
            let far = 2 * FAR + 1;
            let zeros = Out { rows: heads, cols: far, cut: Cut::Pieces(far), start: vec![0.0; heads * far] };
            let [dbias] = same_bits_of([zeros], |ops, [mut dbias]| {
                (ops.back.attend_dbias)(&mut dbias, &kept, &back, &mut scratch());
            });
            close(&dbias, &want.dbias[0], |i| want.dbias[1][i], &format!("dbias {what}"));
        }
    }
}

const SHAPES: [(usize, usize, usize, Cache); 7] = [
    (1, 1, 1, Cache::F32),
    (3, 1, 7, Cache::F16),
    (4, 2, 16, Cache::F32),
    (3, 3, 64, Cache::BF16),
    (2, 2, 33, Cache::F32),
    (2, 1, 80, Cache::Q8),
    (1, 1, 256, Cache::F32),
];

fn shapes() -> impl Iterator<Item = AttendShape> {
    SHAPES.into_iter().map(|(heads, kv_heads, dim, cache)| AttendShape { heads, kv_heads, dim, cache })
}

const LENS: [usize; 4] = [90, 1, 0, 35];

#[test]
fn masks_and_windows() {
    for shape in shapes() {
        let batch = Batch::new(shape, &LENS, &LENS);
        for (window, causal) in
            [(None, true), (Some(1), true), (Some(67), true), (None, false), (Some(30), false)]
        {
            batch.check(&batch.world.args(&batch.rows, window, causal));
        }
    }
}

#[test]
fn caps_and_biases() {
    for shape in shapes().filter(|shape| shape.dim <= 33) {
        let batch = Batch::new(shape, &LENS, &LENS);
        let (slopes, table) = (slopes(shape.heads), table(shape.heads, FAR));
        let plain = |window, causal| batch.world.args(&batch.rows, window, causal);
        batch.check(&AttendArgs { cap: Some(2.0), ..plain(None, true) });
        batch.check(&AttendArgs { bias: Bias::Slopes(&slopes), ..plain(None, false) });
        let steps = steps(shape.heads, 192);
        let by_key = Bias::Positions { table: &steps, len: 192 };
        batch.check(&AttendArgs { bias: by_key, ..plain(None, true) });
        batch.check(&AttendArgs { bias: by_key, cap: Some(4.0), ..plain(Some(30), false) });
        let learned = Bias::Distance { table: &table, far: FAR };
        batch.check(&AttendArgs { bias: learned, ..plain(Some(40), true) });
        batch.check(&AttendArgs { bias: learned, cap: Some(4.0), ..plain(None, false) });
    }
}

#[test]
fn sources() {
    for shape in shapes().filter(|shape| shape.dim <= 64) {
        let batch = Batch::new(shape, &[70, 3, 9, 40], &[5, 130, 0, 64]);
        batch.check(&batch.world.args(&batch.rows, None, false));
    }
}

/// Rows beyond the last sequence, as a batch that is filled up has them, belong to nobody.
#[test]
fn rows_of_no_sequence_get_zeros() {
    let shape = AttendShape { heads: 2, kv_heads: 1, dim: 16, cache: Cache::F32 };
    let (n, ones) = (4 * 16, vec![1.0f32; 4 * 32]);
    let kept = Kept { q: &ones, k: &ones, v: &ones, dout: &ones, stat: &ones, delta: &ones };
    let (bias, starts) = (Bias::None, [0, 2]);
    let args = BackArgs {
        shape,
        scale: 1.0,
        cap: None,
        bias,
        window: None,
        causal: true,
        starts: &starts,
        key_starts: &starts,
    };
    for ops in isas() {
        let (mut dq, mut dk, mut dv) = (vec![f32::NAN; 2 * n], vec![f32::NAN; n], vec![f32::NAN; n]);
        let mut scratch = vec![f32::NAN; back_scratch_words(&shape)];
        let whole = |mem, cols, cut| TileMut::part(mem, 4, cols, cut, 0, 1);
        (ops.back.attend_dq)(&mut whole(&mut dq, 32, dq_cut(&shape, 4)), &kept, &args, &mut scratch);
        let cut = dkv_cut(&shape, 4);
        let (mut k, mut v) = (whole(&mut dk, 16, cut), whole(&mut dv, 16, cut));
        (ops.back.attend_dkv)(&mut k, &mut v, &kept, &args, &mut scratch);
        for x in [&dq, &dk, &dv] {
            let (own, others) = x.split_at(x.len() / 2);
            assert!(own.iter().all(|x| x.is_finite()) && others.iter().all(|x| *x == 0.0), "{}", ops.name());
        }
    }
}
