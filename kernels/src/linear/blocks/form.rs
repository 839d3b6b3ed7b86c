//! Floor 0: the block formats: what a block of 32 elements of k says, read from a file's row, and how 32 outputs of it
//! lie in a packed panel. Knows no instruction sets.
//!
//! The file layouts are ggml's (`ggml-common.h`). A packed panel keeps every bit of them, in another order: for each block
//! of 32 k the scales of 32 outputs, then their codes, so that whoever reads a block goes one way; before each run of eight blocks (the last run has eight to fifteen,
//! so that any k that is a multiple of 32 costs no more than a whole run) the scales of the scales, where a format has
//! them.

use super::{BLOCK, PANEL};
use crate::dtype::DType;
use std::ops::Range;

/// Blocks that share a scale of scales.
pub const RUN: usize = 8;

/// How the scales of a block are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scales {
    /// A half for each block.
    Half,
    /// A half for each block, and one for the minimum.
    HalfMin,
    /// Six bits for scale and minimum, under two halves for each run.
    Six,
    /// Eight bits for each 16, under a half for each run.
    Eight,
}

/// What a format is, to the kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Form {
    /// Bits of a code: 4, 5, 6 or 8.
    pub bits: usize,
    /// How scales are kept.
    pub scales: Scales,
    /// Elements that share a scale.
    pub group: usize,
    /// Whether codes are multiplied as they are, in 0..=15; else as signed bytes.
    pub nibbles: bool,
    /// What is subtracted from a code (in the minimum, where codes are multiplied as they are).
    pub offset: i8,
    /// Whether a code is a place in a table.
    pub table: bool,
}

impl Form {
    /// Of a quantised type. Dense ones have none and are taken for the first.
    #[must_use]
    pub const fn of(dtype: DType) -> Form {
        match dtype {
            DType::Q4_0 => Form::with(4, Scales::Half, 8),
            DType::Q4_1 => Form::with(4, Scales::HalfMin, 0),
            DType::Q4K => Form::with(4, Scales::Six, 0),
            DType::Q5_0 => Form::with(5, Scales::Half, 16),
            DType::Q5_1 => Form::with(5, Scales::HalfMin, 0),
            DType::Q5K => Form::with(5, Scales::Six, 0),
            DType::Q6K => Form::with(6, Scales::Eight, 32),
            DType::IQ4NL => Form { nibbles: false, table: true, ..Form::with(4, Scales::Half, 0) },
            _ => Form::with(8, Scales::Half, 0),
        }
    }

    const fn with(bits: usize, scales: Scales, offset: i8) -> Form {
        let group = if matches!(scales, Scales::Eight) { BLOCK / 2 } else { BLOCK };
        Form { bits, scales, group, nibbles: bits == 4, offset, table: false }
    }

    /// Whether every block has a minimum.
    #[must_use]
    pub fn has_min(&self) -> bool {
        self.nibbles || matches!(self.scales, Scales::HalfMin | Scales::Six)
    }

    /// Bytes of the scales of one block of a panel, which come before its codes.
    #[must_use]
    pub const fn scale_bytes(&self) -> usize {
        match self.scales {
            Scales::Half | Scales::Eight => 2 * PANEL,
            Scales::HalfMin => 4 * PANEL,
            Scales::Six => 2 * PANEL * 6 / 8,
        }
    }

    /// Bytes of one block of a panel.
    #[must_use]
    pub const fn block_bytes(&self) -> usize {
        self.scale_bytes() + self.bits * PANEL * BLOCK / 8
    }

    /// Bytes before each run of blocks.
    #[must_use]
    pub const fn head_bytes(&self) -> usize {
        match self.scales {
            Scales::Half | Scales::HalfMin => 0,
            Scales::Eight => 2 * PANEL,
            Scales::Six => 4 * PANEL,
        }
    }

    /// Where the head of block `b`'s run begins in a panel, and where the block does; of `blocks` in all.
    #[must_use]
    pub fn place(&self, b: usize, blocks: usize) -> (usize, usize) {
        let run = (b / RUN).min((blocks / RUN).max(1) - 1);
        let head = self.head_bytes();
        (run * (head + RUN * self.block_bytes()), (run + 1) * head + b * self.block_bytes())
    }
}

/// The runs that so many blocks fall into: of eight, the last of up to fifteen.
pub fn runs(blocks: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let runs = if blocks == 0 { 0 } else { (blocks / RUN).max(1) };
    (0..runs).map(move |run| run * RUN..if run + 1 == runs { blocks } else { (run + 1) * RUN })
}

/// Bytes of a panel of a quantised type; `None` where `k` is not whole blocks or too large.
#[must_use]
pub fn panel_bytes(dtype: DType, k: usize) -> Option<usize> {
    let (form, blocks) = (Form::of(dtype), k / BLOCK);
    if !k.is_multiple_of(BLOCK) {
        return None;
    }
    blocks.checked_mul(form.block_bytes())?.checked_add(runs(blocks).len() * form.head_bytes())
}

/// A block of 32 elements of one output, as a format keeps it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Block {
    /// In the order of k; 8-bit ones as two's complement.
    pub codes: [u8; BLOCK],
    /// Bits of the half that scales.
    pub d: u16,
    /// Bits of the half that scales the minimum, or is it.
    pub m: u16,
    /// Small scales: of the block, or of its halves.
    pub sc: [u8; 2],
    /// Small minimum.
    pub mn: u8,
}

/// Block `b` of a row in file layout.
#[inline(never)]
pub fn block(dtype: DType, row: &[u8], b: usize) -> Block {
    let (bytes, per) = (dtype.block_bytes(), dtype.block() / BLOCK);
    let at = &row[b / per * bytes..][..bytes];
    let half = |i: usize| u16::from_le_bytes([at[i], at[i + 1]]);
    let mut out = Block { d: half(0), ..Block::default() };
    match dtype {
        DType::Q8_0 => out.codes.copy_from_slice(&at[2..34]),
        DType::Q4_0 | DType::IQ4NL => halves(&mut out.codes, &at[2..18]),
        DType::Q4_1 => {
            out.m = half(2);
            halves(&mut out.codes, &at[4..20]);
        }
        DType::Q5_0 => {
            halves(&mut out.codes, &at[6..22]);
            fifth(&mut out.codes, &at[2..6]);
        }
        DType::Q5_1 => {
            out.m = half(2);
            halves(&mut out.codes, &at[8..24]);
            fifth(&mut out.codes, &at[4..8]);
        }
        DType::Q4K | DType::Q5K => {
            out.m = half(2);
            let (sc, mn) = six_bits(at[4..].first_chunk().expect("twelve bytes"));
            (out.sc[0], out.mn) = (sc[b % per], mn[b % per]);
            let (group, low) = (b % per, if dtype == DType::Q4K { 16 } else { 48 });
            let low = &at[low + BLOCK * (group / 2)..][..BLOCK];
            for (code, low) in out.codes.iter_mut().zip(low) {
                *code = low >> (4 * (group & 1)) & 15;
            }
            if dtype == DType::Q5K {
                for (code, high) in out.codes.iter_mut().zip(&at[16..48]) {
                    *code |= (high >> group & 1) << 4;
                }
            }
        }
        DType::Q6K => {
            let (run, half_of, quarter) = (b % per, b % per / 4, b % per % 4);
            let low = &at[64 * half_of + 32 * (quarter & 1)..][..BLOCK];
            let high = &at[128 + 32 * half_of..][..BLOCK];
            for ((code, low), high) in out.codes.iter_mut().zip(low).zip(high) {
                *code = (low >> (4 * (quarter / 2)) & 15) | (high >> (2 * quarter) & 3) << 4;
            }
            out.sc = [at[192 + 2 * run], at[193 + 2 * run]];
            out.d = half(208);
        }
        DType::F32 | DType::F16 | DType::BF16 => {}
    }
    out
}

/// Sixteen low nibbles, then the high ones.
#[inline(always)]
fn halves(codes: &mut [u8; BLOCK], q: &[u8]) {
    for (i, q) in q.iter().enumerate() {
        codes[i] = q & 15;
        codes[i + BLOCK / 2] = q >> 4;
    }
}

/// A fifth bit for each.
#[inline(always)]
fn fifth(codes: &mut [u8; BLOCK], high: &[u8]) {
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= (high[i / 8] >> (i % 8) & 1) << 4;
    }
}

/// Scales and minima of eight groups, packed in twelve bytes.
#[inline(always)]
pub fn six_bits(s: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let word = |at: usize| u32::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]]);
    let (a, b, c) = (word(0), word(4), word(8));
    let eight = |low: u32, high: u32| (u64::from(low) | u64::from(high) << 32).to_le_bytes();
    let (six, four, two) = (0x3F3F_3F3F, 0x0F0F_0F0F, 0x0303_0303);
    (eight(a & six, (c & four) | (a >> 6 & two) << 4), eight(b & six, (c >> 4 & four) | (b >> 6 & two) << 4))
}

/// Writes block `b` of output `lane` into a panel of zeros.
pub fn put_block(form: &Form, panel: &mut [u8], [b, blocks]: [usize; 2], lane: usize, from: &Block) {
    let (head, small) = form.place(b, blocks);
    let at = small + form.scale_bytes();
    for (k, code) in from.codes.iter().enumerate() {
        let (quad, byte) = (k / 4, 4 * lane + k % 4);
        if form.bits == 8 {
            panel[at + quad * 4 * PANEL + byte] = *code;
            continue;
        }
        panel[at + quad / 2 * 4 * PANEL + byte] |= (code & 15) << (4 * (quad & 1));
        let high = at + PANEL * BLOCK / 2;
        match form.bits {
            5 => panel[high + byte] |= (code >> 4) << quad,
            6 => panel[high + quad / 4 * 4 * PANEL + byte] |= (code >> 4) << (2 * (quad % 4)),
            _ => {}
        }
    }
    let at = small;
    let mut half = |at: usize, bits: u16| panel[at + 2 * lane..][..2].copy_from_slice(&bits.to_le_bytes());
    match form.scales {
        Scales::Half => half(at, from.d),
        Scales::HalfMin => {
            half(at, from.d);
            half(at + 2 * PANEL, from.m);
        }
        Scales::Six => {
            half(head, from.d);
            half(head + 2 * PANEL, from.m);
            panel[at + lane] = from.sc[0] & 15 | (from.mn & 15) << 4;
            let high = from.sc[0] >> 4 | (from.mn >> 4) << 2;
            panel[at + PANEL + lane % 16] |= high << (4 * (lane / 16));
        }
        Scales::Eight => {
            half(head, from.d);
            panel[at + lane] = from.sc[0];
            panel[at + PANEL + lane] = from.sc[1];
        }
    }
}

/// Block `b` of output `lane` of a panel: what [`put_block`] wrote.
pub fn panel_block(form: &Form, panel: &[u8], [b, blocks]: [usize; 2], lane: usize) -> Block {
    let (head, small) = form.place(b, blocks);
    let at = small + form.scale_bytes();
    let mut out = Block::default();
    // Quads of 32 outputs; those of the upper bits come after half as many as there are codes.
    let (words, upper) = (panel[at..].as_chunks::<4>().0, BLOCK / 8);
    let word = |quad: usize| u32::from_le_bytes(words[quad * PANEL + lane]);
    for (quad, codes) in out.codes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let low = || word(quad / 2) >> (4 * (quad % 2)) & 0x0F0F_0F0F;
        let four = match form.bits {
            8 => word(quad),
            5 => low() | (word(upper) >> quad & 0x0101_0101) << 4,
            6 => low() | (word(upper + quad / 4) >> (2 * (quad % 4)) & 0x0303_0303) << 4,
            _ => low(),
        };
        *codes = four.to_le_bytes();
    }
    let at = small;
    let half = |at: usize| u16::from_le_bytes([panel[at + 2 * lane], panel[at + 2 * lane + 1]]);
    match form.scales {
        Scales::Half => out.d = half(at),
        Scales::HalfMin => (out.d, out.m) = (half(at), half(at + 2 * PANEL)),
        Scales::Six => {
            (out.d, out.m) = (half(head), half(head + 2 * PANEL));
            let (low, high) = (panel[at + lane], panel[at + PANEL + lane % 16] >> (4 * (lane / 16)));
            (out.sc[0], out.mn) = (low & 15 | (high & 3) << 4, low >> 4 | (high >> 2 & 3) << 4);
        }
        Scales::Eight => {
            out.d = half(head);
            out.sc = [panel[at + lane], panel[at + PANEL + lane]];
        }
    }
    out
}
