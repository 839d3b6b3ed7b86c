//! Floor 3: matrices of linears, whole tensors or parts of fused ones. Knows no blocks.

use super::{Binder, Fill};
use crate::arch::{Fused, Linear, Part, Stack};
use crate::error::Result;
use crate::format::tensors::TensorRef;
use crate::weights::{AddedW, LinearW, MatrixParam, Origin, P, Param, Role, Site, Slice, VectorParam};
use kernels::{DType, Matrix, Order};

impl Binder<'_> {
    pub(super) fn linear(
        &mut self,
        s: &Stack,
        at: &str,
        slot: &Linear,
        n: usize,
        k: usize,
    ) -> Result<LinearW> {
        let name = format!("{at}{}", slot.name);
        let (w, dtype) = self.matrix(&format!("{name}.weight"), slot, slice(s, slot, n), n, k)?;
        let bias = if slot.bias {
            let (name, rows) = (format!("{name}.bias"), slice(s, slot, n));
            let all = self.floats(&name, &[rows.whole], Fill::All(0.0))?;
            let places: Vec<usize> = rows.rows(n).collect();
            let values = places.iter().map(|row| all[*row]).collect();
            let origin = Origin { tensor: self.found(&name), places: Some(places), shift: 0.0 };
            let bias = VectorParam { origin: Some(origin), ..VectorParam::computed(values) };
            Some(self.push(Param::Vector(bias)))
        } else {
            None
        };
        let (rows, by_input) = (slice(s, slot, n), slot.order == Order::Kn);
        self.sites.push(Site { bias, rows, by_input, ..self.site(&name, Role::Linear, w, [n, k]) });
        Ok(LinearW { w, bias, n, dtype, added: AddedW::default() })
    }

    pub(super) fn matrix(
        &mut self,
        name: &str,
        slot: &Linear,
        rows: Slice,
        n: usize,
        k: usize,
    ) -> Result<(P, DType)> {
        let own = format!("{name}{}", slot.part.suffix());
        let long = format!("{}{own}", self.arch.prefix);
        let order = if self.tensors.is_gguf() { Order::Nk } else { slot.order };
        let (height, width) = if order == Order::Nk { (rows.whole, k) } else { (k, rows.whole) };
        let shape = [height, width];
        let tensor = match self.tensors.get(&long)? {
            Some(packed) if packed.is_packed() => return self.panels(&own, packed.clone(), [n, k]),
            _ if self.named(name).is_none() && self.tensors.has(&own) => {
                self.find(&own, &shape, Fill::Random)?
            }
            _ => self.find(name, &shape, Fill::Random)?,
        };
        if tensor.is_packed() {
            return self.panels(&own, tensor, [n, k]);
        }
        self.matrices.extend(self.named(name));
        let dtype = tensor.dtype();
        if tensor.shape() != shape {
            return Err(self.wrong(name, &format!("[{height}, {width}]"), &tensor));
        }
        let stride = dtype.row_bytes(width).ok_or_else(|| {
            self.wrong(name, &format!("rows of a multiple of {} for this type", dtype.block()), &tensor)
        })?;
        let offset = rows.first * if order == Order::Nk { stride } else { dtype.block_bytes() };
        let bytes = tensor.bytes().get(offset..).unwrap_or_default();
        let mut matrix = Matrix::new(bytes, dtype, order, n, k, stride);
        if let Some((run, skip)) = rows.runs {
            matrix = matrix.and_then(|whole| whole.in_runs(run, skip));
        }
        if let Err(e) = matrix {
            return Err(self.wrong(name, &format!("a matrix ({e})"), &tensor));
        }
        let (of, name, tensor) = (self.found(name), long, tensor);
        let param = MatrixParam { name, of, tensor, offset, dtype, order, n, k, stride, runs: rows.runs };
        Ok((self.push(Param::Matrix(param)), dtype))
    }

    /// A matrix that its file has in packed panels already.
    fn panels(&mut self, name: &str, tensor: TensorRef, [n, k]: [usize; 2]) -> Result<(P, DType)> {
        if tensor.shape() != [n, k] {
            return Err(self.wrong(name, &format!("[{n}, {k}]"), &tensor));
        }
        let name = format!("{}{name}", self.arch.prefix);
        self.matrices.insert(name.clone());
        self.used.insert(name.clone());
        let (dtype, order) = (tensor.dtype(), Order::Panels);
        let of = name.clone();
        let param = MatrixParam { name, of, tensor, offset: 0, dtype, order, n, k, stride: 0, runs: None };
        Ok((self.push(Param::Matrix(param)), dtype))
    }
}

/// Which rows of the tensor that `slot` names are the `n` outputs of the layer.
fn slice(s: &Stack, slot: &Linear, n: usize) -> Slice {
    let (q, kv, dim) = (s.q_cols(), s.kv_cols(), s.head_dim);
    let group = s.n_heads / s.n_kv_heads * dim;
    let concat = |first| Slice { first, whole: q + 2 * kv, runs: None };
    let groups = |first, run| Slice { first, whole: q + 2 * kv, runs: Some((run, group + 2 * dim - run)) };
    match slot.part {
        Part::Whole => Slice::all(n),
        Part::Q(Fused::Concat) => concat(0),
        Part::K(Fused::Concat) => concat(q),
        Part::V(Fused::Concat) => concat(q + kv),
        Part::Q(Fused::Groups) => groups(0, group),
        Part::K(Fused::Groups) => groups(group, dim),
        Part::V(Fused::Groups) => groups(group + dim, dim),
        Part::Gate => Slice { first: 0, whole: 2 * n, runs: None },
        Part::Up => Slice { first: n, whole: 2 * n, runs: None },
    }
}
