//! Floor 0: some rows meet blocks of quantised outputs: unpacked ones, or those of a packed panel as they come by. Knows no
//! files.

use super::form::Form;
use super::tile::{self, Signed, Sums};
use super::{BLOCK, PANEL, Unpacked, block_words, dense, unpack};
use crate::dtype::DType;
use crate::simd::{Apart, Bytes, Dots, Simd};

/// [`tile::bytes`] of codes as a panel has them, or where one row would not pay for that as bytes; in a function of its own
/// where it is long.
#[inline(always)]
fn signed<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize>(
    s: S,
    sums: &mut Sums<S, M>,
    block: Signed<GROUPS>,
) {
    if const { as_packed::<S>(ONE) } {
        // Two scales a block belong to six bits alone.
        match (GROUPS, block.form.bits) {
            (2, _) => tile::bytes::<S, M, ONE, 6, GROUPS>(s, sums, block),
            (_, 4) => tile::bytes::<S, M, ONE, 4, GROUPS>(s, sums, block),
            (_, 5) => tile::bytes::<S, M, ONE, 5, GROUPS>(s, sums, block),
            _ => tile::bytes::<S, M, ONE, 8, GROUPS>(s, sums, block),
        }
    } else if const { S::REGISTERS >= 32 } {
        tile::bytes::<S, M, ONE, 8, GROUPS>(s, sums, block);
    } else if const { halved::<S>(M) == 3 } {
        for (i, sums) in sums.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            s.apart(Tile::<S, 3, ONE, GROUPS> { sums, block: Signed { x: &block.x[3 * i..], ..block } });
        }
    } else {
        s.apart(Tile::<S, M, ONE, GROUPS> { sums, block });
    }
}

/// Whether codes of few bits are spread in registers, which pays for one row.
const fn as_packed<S: Dots>(one: bool) -> bool {
    one && S::REGISTERS >= 16
}

/// Rows of each half of a tile of `m` rows that is multiplied as two, or `m`: half as many leave registers for their sums so
/// far, or at least for the products that are added to them.
const fn halved<S: Dots>(m: usize) -> usize {
    match (S::REGISTERS, m) {
        (32, 14) => 7,
        (16, 6) if S::PARTS == 2 => 3,
        _ => m,
    }
}

/// [`tile::bytes`]
struct Tile<'a, S: Dots, const M: usize, const ONE: bool, const GROUPS: usize> {
    sums: &'a mut Sums<S, M>,
    block: Signed<'a, GROUPS>,
}

impl<S: Dots, const M: usize, const ONE: bool, const GROUPS: usize> Apart<S> for Tile<'_, S, M, ONE, GROUPS> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        tile::bytes::<S, M, ONE, 8, GROUPS>(s, self.sums, self.block);
    }
}

/// Some rows meet all of some unpacked blocks: signed codes are widened where the set does that.
struct Meet<'a, 'w, const M: usize, const ONE: bool> {
    sums: &'a mut [[f32; PANEL]; M],
    form: &'a Form,
    w: &'a Unpacked<'w>,
    x: &'a [f32],
}

impl<S: Dots, const M: usize, const ONE: bool> Apart<S> for Meet<'_, '_, M, ONE> {
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Meet { sums: to, form, w, x } = self;
        let words = block_words::<S>(form) * if ONE { 1 } else { dense::rows::<S>() };
        let (blocks, mut sums) = (w.codes.chunks(w.stride).enumerate(), tile::load(s, to));
        if let (true, Some(mins)) = (form.nibbles, w.mins) {
            for (b, codes) in blocks {
                let (scales, mins, x) = (&w.scales[b], &mins[b], &x[b * words..]);
                tile::nibbles::<S, M, ONE, false>(s, &mut sums, codes, scales, mins, x);
            }
        } else if form.group == BLOCK {
            for (b, codes) in blocks {
                let (mins, x) = (w.mins.map(|mins| &mins[b]), &x[b * words..]);
                let scales = w.scales[b..].first_chunk().expect("a scale");
                let block = Signed { form, codes, scales, mins, x };
                tile::bytes::<S, M, ONE, { tile::READY }, 1>(s, &mut sums, block);
            }
        } else {
            for (b, codes) in blocks {
                let (mins, x) = (w.mins.map(|mins| &mins[b]), &x[b * words..]);
                let scales = w.scales[2 * b..].first_chunk().expect("two scales");
                let block = Signed { form, codes, scales, mins, x };
                tile::bytes::<S, M, ONE, { tile::READY }, 2>(s, &mut sums, block);
            }
        }
        tile::store(s, &sums, to);
    }
}

/// [`unpack::one`], and [`unpack::widen`] where the codes of the format have to be spread.
struct Ready<'a, 'b> {
    form: &'b Form,
    panel: &'a [u8],
    place: [usize; 2],
    scales: &'b mut [[f32; PANEL]; 2],
    mins: &'b mut [f32; PANEL],
    codes: &'a mut [u8],
    /// Whether codes are left as they lie.
    lies: bool,
}

impl<'a, S: Bytes> Apart<S> for Ready<'a, '_> {
    type Out = &'a [u8];

    #[inline(always)]
    fn run(self, s: S) -> &'a [u8] {
        let packed = unpack::one(s, self.form, self.panel, self.place, self.scales, self.mins);
        if self.form.nibbles || self.form.bits == 8 || self.lies {
            return packed;
        }
        let codes = &mut self.codes[..PANEL * BLOCK];
        unpack::widen(s, self.form, packed, codes);
        codes
    }
}

/// `M` rows meet unpacked blocks.
#[inline(always)]
pub fn meet<S: Dots, const M: usize, const ONE: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    form: &Form,
    w: &Unpacked,
    x: &[f32],
) {
    macro_rules! halves {
        ($m:literal) => {
            for (i, sums) in sums.as_chunks_mut::<$m>().0.iter_mut().enumerate() {
                s.apart(Meet::<$m, ONE> { sums, form, w, x: &x[$m * i..] });
            }
        };
    }
    match const { halved::<S>(M) } {
        3 if const { M == 6 } && !form.nibbles => halves!(3),
        7 if const { M == 14 } => halves!(7),
        _ => s.apart(Meet::<M, ONE> { sums, form, w, x }),
    }
}

/// Formats that most models come in, and our own: one row has a loop for each, where what the form decides is decided.
const USUAL: [Form; 4] =
    [Form::of(DType::Q8_0), Form::of(DType::Q4_0), Form::of(DType::Q4K), Form::of(DType::Q6K)];

/// `M` rows meet the blocks of a packed panel.
#[inline(always)]
pub fn stream<S: Dots<Plain: Bytes>, const M: usize, const ONE: bool>(
    s: S,
    sums: &mut [[f32; PANEL]; M],
    form: &Form,
    panel: &[u8],
    blocks: usize,
    x: &[f32],
    codes: &mut [u8],
) {
    if const { ONE && S::REGISTERS >= 16 } {
        match USUAL.iter().position(|usual| usual == form) {
            Some(0) => s.apart(Stream::<M, ONE, 0> { sums, form, panel, blocks, x, codes }),
            Some(1) => s.apart(Stream::<M, ONE, 1> { sums, form, panel, blocks, x, codes }),
            Some(2) => s.apart(Stream::<M, ONE, 2> { sums, form, panel, blocks, x, codes }),
            Some(3) => s.apart(Stream::<M, ONE, 3> { sums, form, panel, blocks, x, codes }),
            _ => s.apart(Stream::<M, ONE, 4> { sums, form, panel, blocks, x, codes }),
        }
    } else {
        s.apart(Stream::<M, ONE, 4> { sums, form, panel, blocks, x, codes });
    }
}

/// What [`stream`] does: with one of the [`USUAL`] forms, or with any where `FORM` is beyond them.
struct Stream<'a, const M: usize, const ONE: bool, const FORM: usize> {
    sums: &'a mut [[f32; PANEL]; M],
    form: &'a Form,
    panel: &'a [u8],
    blocks: usize,
    x: &'a [f32],
    codes: &'a mut [u8],
}

impl<S: Dots<Plain: Bytes>, const M: usize, const ONE: bool, const FORM: usize> Apart<S>
    for Stream<'_, M, ONE, FORM>
{
    type Out = ();

    #[inline(always)]
    fn run(self, s: S) {
        let Stream { sums: to, form, panel, blocks, x, codes } = self;
        let form = if const { FORM < USUAL.len() } { &const { USUAL[FORM % USUAL.len()] } } else { form };
        let words = block_words::<S>(form) * if ONE { 1 } else { dense::rows::<S>() };
        let (mut scales, mut mins, mut sums) = ([[0.0; PANEL]; 2], [0.0; PANEL], tile::load(s, to));
        let size = form.block_bytes();
        for b in 0..blocks {
            // Lines of a block are not read in their order, which no processor foresees.
            let next =
                panel.as_ptr().wrapping_add(form.place(b, blocks).1 + dense::AHEAD.next_multiple_of(size));
            for line in (0..size).step_by(64) {
                s.prefetch_first(next.wrapping_add(line));
            }
            let (scales, mins) = (&mut scales, &mut mins);
            let ready = Ready {
                form,
                panel,
                place: [b, blocks],
                scales,
                mins,
                codes,
                lies: const { as_packed::<S>(ONE) },
            };
            let codes =
                if const { FORM < USUAL.len() } { ready.run(s.plain()) } else { s.plain().apart(ready) };
            let x = &x[b * words..];
            if form.nibbles {
                tile::nibbles::<S, M, ONE, true>(s, &mut sums, codes, &scales[0], mins, x);
                continue;
            }
            let mins = form.has_min().then_some(&*mins);
            if form.group == BLOCK {
                let scales = scales[..1].first_chunk().expect("a scale");
                signed::<S, M, ONE, 1>(s, &mut sums, Signed { form, codes, scales, mins, x });
            } else {
                signed::<S, M, ONE, 2>(s, &mut sums, Signed { form, codes, scales, mins, x });
            }
        }
        tile::store(s, &sums, to);
    }
}
