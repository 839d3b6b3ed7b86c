//! Floor 4: the verbs of adapters on one worker's tile. Each looks up the adapters of its rows; rows without any pass what
//! they would have been.

use super::Graft;
use crate::adapter::{Grafts, part};
use crate::layout::Layout;
use crate::run::Ctx;
use crate::tables::Tables;
use crate::weights::{P, Slice};
use kernels::embed::embed;
use kernels::simd::LANES;
use kernels::{Cut, Part, TileMut};
use std::ops::Range;

/// All rows of a buffer in order, in runs with the same adapters or none. A buffer has as many as the call or, from where
/// rows are picked on, as the answer.
fn runs(t: &Tables, rows: usize) -> impl Iterator<Item = (Range<usize>, Option<&Grafts>)> {
    let all = rows == t.ids.len();
    let own = t.grafted.iter().map(move |g| (if all { &g.rows } else { &g.picks }, &*g.by));
    let mut own = own.filter(|(rows, _)| !rows.is_empty()).peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= rows {
            return None;
        }
        let from = at;
        let next = own.peek().map_or(rows, |(own, _)| own.start);
        if next > from {
            at = next;
            return Some((from..at, None));
        }
        let (own, by) = own.next()?;
        at = own.end;
        Some((from..at, Some(by)))
    })
}

/// Runs `g` on the worker's part `p`.
pub fn run(g: &Graft, p: &mut Part, c: &Ctx, l: &Layout) {
    let t = c.tables;
    match *g {
        Graft::Down { out, x, site } => {
            let (x, rows) = (p.read(l.buf(x)), l.buf(out).rows);
            down(&mut p.write(l.buf(out)), c, x, rows, site);
        }
        Graft::Prompt { out, positions, types } => prompt(&mut p.write(l.buf(out)), c, positions, types),
        Graft::Prefix { out, layer, values } => {
            let (span, part) = (l.buf(out), 2 * layer as usize + usize::from(values));
            prefix(&mut p.write(span), t, span.cols, [part, 2 * c.stack.n_layers]);
        }
        Graft::Lookup { out, site } => {
            let rows = l.buf(out).rows;
            lookup(&mut p.write(l.buf(out)), t, rows, site, c.stack.embed.scale);
        }
        Graft::Up { out, t: low, x, add, site } => {
            let (add, span) = (add.map(|b| p.read(l.buf(b))), l.buf(out));
            let of = [low, x].map(|b| b.map_or(Wide::default(), |b| Wide(p.read(l.buf(b)), l.buf(b).cols)));
            let out = &mut p.write(span);
            begin(out, add, span.cols);
            up(out, c, of, span.rows, site);
        }
        Graft::Squeeze { out, raw, sum, site } => {
            let (reads, span) = ([raw, sum].map(|b| b.map(|b| p.read(l.buf(b)))), l.buf(out));
            squeeze(&mut p.write(span), c, reads, span.rows, site);
        }
        Graft::Widen { out, t: low, add, site } => {
            let (low, add, span) =
                (Wide(p.read(l.buf(low)), l.buf(low).cols), p.read(l.buf(add)), l.buf(out));
            let out = &mut p.write(span);
            begin(out, Some(add), span.cols);
            widen(out, c, low, span.rows, site);
        }
        Graft::Sum { out, y, add } => {
            let (span, y, add) = (l.buf(out), p.read(l.buf(y)), add.map(|b| p.read(l.buf(b))));
            let out = &mut p.write(span);
            begin(out, Some(y), span.cols);
            let cols = out.cols();
            for r in out.rows().filter(|_| add.is_some()) {
                let add = &add.unwrap_or_default()[r * span.cols..][cols.clone()];
                out.row(r).iter_mut().zip(add).for_each(|(x, add)| *x += add);
            }
        }
        Graft::Entry { out, t: low, add, table, site } => {
            let low = low.map_or(Wide::default(), |b| Wide(p.read(l.buf(b)), l.buf(b).cols));
            let (add, span) = (p.read(l.buf(add)), l.buf(out));
            let out = &mut p.write(span);
            begin(out, Some(add), span.cols);
            entry(out, c, low, table, site, span.rows);
        }
        Graft::Scale { out, x, site } => {
            let (span, x) = (l.buf(out), p.read(l.buf(x)));
            let out = &mut p.write(span);
            begin(out, Some(x), span.cols);
            scale(out, t, span.rows, site);
        }
        Graft::Adjust { out, y, add, site } => {
            let (span, y, add) = (l.buf(out), p.read(l.buf(y)), add.map(|b| p.read(l.buf(b))));
            adjust(&mut p.write(span), t, y, add, site, [span.rows, span.cols]);
        }
        Graft::Norm { out, y, x, add, width, site } => {
            let add = add.map(|b| p.read(l.buf(b)));
            let (y, x, span) = (p.read(l.buf(y)), p.read(l.buf(x)), l.buf(out));
            let out = &mut p.write(span);
            begin(out, Some(y), width);
            norm(out, c, x, add, [span.rows, span.cols / width, width], site);
        }
    }
}

/// A buffer, and how long its rows are.
#[derive(Clone, Copy, Default)]
struct Wide<'a>(&'a [f32], usize);

/// Narrow products of `x`, times their scales.
fn down(out: &mut TileMut, c: &Ctx, x: &[f32], rows: usize, site: u32) {
    for (rows, by) in runs(c.tables, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).low {
            c.ops.narrow(out, x, rows.clone(), &by.lora(piece).0.down(), piece.at, piece.scale);
        }
    }
}

/// Adds what narrow products become, and what whole modules make of `x`.
fn up(out: &mut TileMut, c: &Ctx, [low, x]: [Wide; 2], rows: usize, site: u32) {
    for (rows, by) in runs(c.tables, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).low {
            let (lora, place) = by.lora(piece);
            let b = lora.up(place.rows, place.n);
            c.ops.widen(out, low.0, low.1, rows.clone(), &b, piece.at, piece.gains.as_deref());
        }
        for piece in &by.here(site).full {
            let (module, place) = by.module(piece);
            let w = module.weight_of(place);
            c.ops.widen(out, x.0, x.1, rows.clone(), &w, 0, piece.gains.as_deref());
        }
    }
}

/// Adds what inner activations of small MLPs become.
fn widen(out: &mut TileMut, c: &Ctx, low: Wide, rows: usize, site: u32) {
    let cols = out.cols();
    for (rows, by) in runs(c.tables, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).necks {
            let neck = by.neck(piece);
            c.ops.widen(out, low.0, low.1, rows.clone(), &neck.matrices()[1], piece.at, None);
            for r in rows.clone() {
                let bias = neck.up_bias[cols.clone()].iter();
                out.row(r).iter_mut().zip(bias).for_each(|(x, b)| *x += piece.scale * b);
            }
        }
    }
}

/// Inner activations of small MLPs, times their scales.
fn squeeze(out: &mut TileMut, c: &Ctx, [raw, sum]: [Option<&[f32]>; 2], rows: usize, site: u32) {
    for (rows, by) in runs(c.tables, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).necks {
            let neck = by.neck(piece);
            let Some(x) = (if neck.sum { sum } else { raw }) else { continue };
            c.ops.narrow(out, x, rows.clone(), &neck.matrices()[0], piece.at, 1.0);
            for cell in out.cells() {
                let cols = cell.cols.start.max(piece.at)..cell.cols.end.min(piece.at + neck.width);
                if cols.is_empty() {
                    continue;
                }
                for r in cell.rows.start.max(rows.start)..cell.rows.end.min(rows.end) {
                    let (mut inner, n) = ([0.0; LANES], cols.len());
                    let own = &mut out.cell_row(&cell, r)[cols.start - cell.cols.start..][..n];
                    let bias = &neck.down_bias[cols.start - piece.at..];
                    inner.iter_mut().zip(own.iter().zip(bias)).for_each(|(to, (x, b))| *to = x + b);
                    c.ops.act(&mut TileMut::whole(own, 1, n), &inner[..n], None, n, neck.act);
                    own.iter_mut().for_each(|x| *x *= piece.scale);
                }
            }
        }
    }
}

/// `out` becomes `add`, or what changes no bit of a sum.
fn begin(out: &mut TileMut, add: Option<&[f32]>, n: usize) {
    let cols = out.cols();
    for r in out.rows() {
        match add {
            Some(add) => out.row(r).copy_from_slice(&add[r * n..][cols.clone()]),
            None => out.row(r).fill(-0.0),
        }
    }
}

/// Vectors of a prompt, in order, with their positions and types.
fn prompt(out: &mut TileMut, c: &Ctx, positions: Option<P>, types: Option<P>) {
    let (t, matrix) = (c.tables, |p: P| c.weights.params[p.0 as usize].matrix());
    let Some((adapter, n)) = t.grafted.first().and_then(|g| g.by.prompt()) else { return };
    let own = part(&adapter.prompt, adapter.prompt.len() / n, Slice::all(n), n);
    let (positions, types) = (positions.map(matrix), types.map(matrix));
    let positions = positions.as_ref().map(|table| (table, &t.places[..]));
    let more: Vec<_> =
        positions.into_iter().chain(types.as_ref().map(|table| (table, &t.types[..]))).collect();
    // Only rows of the model's own table are scaled.
    embed(out, &own, &t.ids, 1.0, &more);
}

/// The `part`-th of `parts` pieces of each row of a prefix.
fn prefix(out: &mut TileMut, t: &Tables, cols: usize, [part, parts]: [usize; 2]) {
    let Some((adapter, _)) = t.grafted.first().and_then(|g| g.by.prompt()) else { return };
    for r in out.rows() {
        out.row(r).copy_from_slice(&adapter.prompt[(r * parts + part) * cols..][..cols]);
    }
}

/// Rows of narrow products of a table.
fn lookup(out: &mut TileMut, t: &Tables, rows: usize, site: u32, scale: f32) {
    let own = out.rows();
    for (rows, by) in runs(t, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).low {
            let lora = by.lora(piece).0;
            let vocab = lora.a.len() / lora.rank;
            for r in rows.start.max(own.start)..rows.end.min(own.end) {
                let to = &mut out.row(r)[piece.at..][..lora.rank];
                let column = lora.a.iter().skip(t.ids[r] as usize).step_by(vocab);
                to.iter_mut().zip(column).for_each(|(to, a)| *to = a * piece.scale * scale);
            }
        }
    }
}

/// Adds rows of the products of a table's narrow matrices, and of other tables.
fn entry(out: &mut TileMut, c: &Ctx, low: Wide, table: P, site: u32, rows: usize) {
    for (rows, by) in runs(c.tables, rows) {
        let Some(by) = by else { continue };
        for piece in &by.here(site).low {
            let (lora, place) = by.lora(piece);
            let b = lora.up(place.rows, lora.b.len() / lora.rank);
            c.ops.widen(out, low.0, low.1, rows.clone(), &b, piece.at, None);
        }
        entries(out, c, by, table, site, rows);
    }
}

/// Rows of other tables, less those of the model's own.
fn entries(out: &mut TileMut, c: &Ctx, by: &Grafts, table: P, site: u32, rows: Range<usize>) {
    let (cols, own) = (out.cols(), c.weights.params[table.0 as usize].matrix());
    let scale = c.stack.embed.scale;
    let mut old = vec![0.0; if by.here(site).full.is_empty() { 0 } else { own.k() }];
    for piece in &by.here(site).full {
        let (module, place) = by.module(piece);
        let new = module.weight_of(place);
        for r in rows.clone() {
            let id = c.tables.ids[r] as usize;
            embed(&mut TileMut::whole(&mut old, 1, own.k()), &own, &[id as u32], 1.0, &[]);
            let new = bytemuck::cast_slice::<u8, [u8; 4]>(new.row(id));
            for ((out, new), old) in out.row(r).iter_mut().zip(&new[cols.clone()]).zip(&old[cols.clone()]) {
                *out += piece.scale * scale * (f32::from_le_bytes(*new) - old);
            }
        }
    }
}

/// Multiplies by the factors of what a linear reads.
fn scale(out: &mut TileMut, t: &Tables, rows: usize, site: u32) {
    let cols = out.cols();
    for (rows, by) in runs(t, rows) {
        let Some(factors) = by.and_then(|by| by.here(site).inputs.as_ref()) else { continue };
        for r in rows {
            out.row(r).iter_mut().zip(&factors[cols.clone()]).for_each(|(x, f)| *x *= f);
        }
    }
}

/// Norms with other gains and biases. There are `each` of `width` in a row of the call.
fn norm(
    out: &mut TileMut,
    c: &Ctx,
    x: &[f32],
    add: Option<&[f32]>,
    [rows, each, width]: [usize; 3],
    site: u32,
) {
    let (own, kind) = (out.rows(), c.stack.norm);
    for (rows, by) in runs(c.tables, rows) {
        let Some([gain, bias]) = by.and_then(|by| by.here(site).outputs.as_ref()) else { continue };
        for r in (rows.start * each).max(own.start)..(rows.end * each).min(own.end) {
            let at = r * width..(r + 1) * width;
            let (x, add) = (&x[at.clone()], add.map(|add| &add[at]));
            let out = &mut TileMut::part(out.row(r), 1, width, Cut::Pieces(width), 0, 1);
            (c.ops.norm)(out, x, gain, Some(bias), kind.eps, kind.kind, add);
        }
    }
}

/// A linear's outputs, times factors and with shifts.
fn adjust(out: &mut TileMut, t: &Tables, y: &[f32], add: Option<&[f32]>, site: u32, [rows, n]: [usize; 2]) {
    let cols = out.cols();
    for (rows, by) in runs(t, rows) {
        let affine = by.and_then(|by| by.here(site).outputs.as_ref());
        for r in rows {
            let at = r * n + cols.start..r * n + cols.end;
            let out = out.row(r);
            out.copy_from_slice(&y[at.clone()]);
            if let Some([factors, shifts]) = affine {
                let affine = factors[cols.clone()].iter().zip(&shifts[cols.clone()]);
                out.iter_mut().zip(affine).for_each(|(out, (f, s))| *out = *out * f + s);
            }
            if let Some(add) = add {
                out.iter_mut().zip(&add[at]).for_each(|(out, add)| *out += add);
            }
        }
    }
}
