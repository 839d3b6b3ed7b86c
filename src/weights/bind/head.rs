//! Floor 3: the head's tensors, and whether it shares a table. Knows no files.

use super::Binder;
use crate::arch::{Head, Linear, Out};
use crate::error::Result;
use crate::format::tensors::TensorRef;
use crate::weights::{AddedW, HeadW, LinearW, P, Param, Role};

impl Binder<'_> {
    pub(super) fn head(&mut self, h: &Head, tokens: Option<P>) -> Result<Option<HeadW>> {
        let s = self.arch.last();
        let probe = h.dense.map_or("", |(dense, _)| dense.name);
        if h.optional && self.wishes.is_none() && self.named(&format!("{probe}.weight")).is_none() {
            return Ok(None);
        }
        let dense = h.dense.map(|(slot, n)| self.linear(s, "", &slot, n, s.state_cols())).transpose()?;
        let width = h.dense.map_or(s.state_cols(), |(_, n)| n);
        let norm = match h.norm {
            "" => None,
            name => Some(self.norm(s, name, width)?),
        };
        let mut out = match (h.out, tokens) {
            (Out::Tied(slot), Some(w)) if self.is_own(&slot, w)? => {
                Some(self.linear(s, "", &slot, h.n, width)?)
            }
            (Out::Tied(slot), Some(w)) => {
                let dtype = self.params[w.0 as usize].k_dtype().1;
                self.sites.push(self.site(slot.name, Role::Linear, w, [h.n, width]));
                Some(LinearW { w, bias: None, n: h.n, dtype, added: AddedW::default() })
            }
            (Out::Linear(slot), _) => Some(self.linear(s, "", &slot, h.n, width)?),
            _ => None,
        };
        if let Some(out) = &mut out
            && !h.bias.is_empty()
        {
            out.bias = Some(self.vector(h.bias, h.n, 0.0, 0.0)?);
            self.sites.set_bias(out.w, out.bias.filter(|_| !h.constant));
        }
        Ok(Some(HeadW { dense, norm, out }))
    }

    /// Whether the files have another matrix in the place of a head that shares `table`: then it is not shared, whatever
    /// the config says. One that is the same is no part of the model.
    pub(super) fn is_own(&mut self, slot: &Linear, table: P) -> Result<bool> {
        self.used.insert(format!("{}.bias", slot.name));
        let Some(name) = self.named(&format!("{}.weight", slot.name)) else { return Ok(false) };
        let (own, Param::Matrix(table)) = (self.tensors.get(&name)?, &self.params[table.0 as usize]) else {
            return Ok(false);
        };
        let shape = |t: &TensorRef| (t.is_packed(), t.dtype(), t.shape().to_vec());
        let same =
            |own: &TensorRef| shape(own) == shape(&table.tensor) && own.bytes() == table.tensor.bytes();
        if own.is_some_and(|own| !same(own)) {
            return Ok(true);
        }
        self.used.insert(name.clone());
        self.matrices.insert(name);
        Ok(false)
    }
}
