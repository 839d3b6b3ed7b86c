//! Floor 3: tables of rows: those that files have, and those that are computed. Knows no blocks.

use super::{Binder, Fill};
use crate::arch::{Linear, Position, Stack, Table};
use crate::error::{Error, Result};
use crate::format::source::{Source, zeroed};
use crate::format::tensors::TensorRef;
use crate::positions::{by_distance, coarse_slopes, sinusoids, slopes};
use crate::weights::{MatrixParam, Origin, P, Param, Role, Site, Slice, VectorParam};
use kernels::attention::PAGE;
use kernels::{DType, Order};

impl Binder<'_> {
    /// A table of rows, read by number.
    pub(super) fn table(&mut self, name: &str, n: usize, k: usize, scale: f32) -> Result<P> {
        if let Some(known) = self.tables.get(name) {
            return Ok(*known);
        }
        let p = self.matrix(&format!("{name}.weight"), &Linear::new(""), Slice::all(n), n, k)?.0;
        self.tables.insert(name.to_owned(), p);
        let site = self.site(name, Role::Table, p, [n, k]);
        self.sites.push(Site { number: scale, ..site });
        Ok(p)
    }

    /// A table that no file has.
    pub(super) fn computed(&mut self, values: &[f32], n: usize, k: usize) -> Result<P> {
        let (bytes, stride) = (values.len() * 4, k * 4);
        let mut memory = zeroed("the table of positions", bytes)?;
        for (to, value) in memory.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *to = value.to_le_bytes();
        }
        let source = Source::anonymous("positions", memory.make_read_only().map_err(Error::io("positions"))?);
        let tensor = TensorRef::dense(DType::F32, &[n, k], source, 0..bytes);
        let (dtype, order) = (DType::F32, Order::Nk);
        let (name, of) = (String::new(), String::new());
        let param = MatrixParam { name, of, tensor, offset: 0, dtype, order, n, k, stride, runs: None };
        Ok(self.push(Param::Matrix(param)))
    }

    /// The table of positions that are added to embeddings.
    pub(super) fn positions(&mut self, s: &Stack) -> Result<Option<P>> {
        let Some((table, offset, pad)) = s.table() else { return Ok(None) };
        let width = if s.places_stream() { s.d_model } else { s.embed.width };
        let rows = self.arch.max_positions + offset;
        match table {
            Table::Learned => self.table(s.names.positions, rows, width, 1.0).map(Some),
            table => {
                affordable(rows, width)?;
                let mut values = sinusoids(table, rows, width);
                if pad.is_some() {
                    values[(offset - 1) * width..offset * width].fill(0.0);
                }
                self.computed(&values, rows, width).map(Some)
            }
        }
    }

    /// What attention adds to its scores, and the biases that it is made of where the files have some.
    pub(super) fn score_bias(&mut self, s: &Stack) -> Result<(Option<P>, Option<P>)> {
        let (values, distances) = match s.position {
            Position::Alibi { scale, coarse: true } => {
                let len = self.arch.max_positions.next_multiple_of(PAGE);
                affordable(s.n_heads, len)?;
                (coarse_slopes(s.n_heads, len, scale), None)
            }
            Position::Alibi { scale, .. } => {
                (slopes(s.n_heads).into_iter().map(|slope| slope * scale).collect(), None)
            }
            Position::Relative { buckets: rows, .. } => {
                let name = format!("{}.weight", s.names.relative);
                let values = self.floats(&name, &[rows, s.n_heads], Fill::Random)?;
                let origin = Some(Origin { tensor: self.found(&name), places: None, shift: 0.0 });
                let table = by_distance(s, &values);
                (
                    table,
                    Some(self.push(Param::Vector(VectorParam {
                        rows,
                        origin,
                        ..VectorParam::computed(values)
                    }))),
                )
            }
            Position::Rope { .. } | Position::Table { .. } => return Ok((None, None)),
        };
        Ok((Some(self.computed_vector(values)), distances))
    }
}

/// Refuses to compute a table of positions that no model has.
fn affordable(rows: usize, cols: usize) -> Result<()> {
    let bytes = rows as u64 * cols as u64 * 4;
    let fits = rows.checked_mul(cols).is_some_and(|n| n <= 1 << 30);
    if fits { Ok(()) } else { Err(Error::Memory { what: "the table of positions", bytes }) }
}
