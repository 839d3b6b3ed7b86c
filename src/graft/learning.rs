//! Floor 4: what an adapter that learns adds to a linear, in verbs that have gradients. Sums are in the order of finished
//! adapters, so that what was learnt has the same bits in a session. Knows no files.

use crate::exec::Exec;
use crate::verb::Buf;
use crate::weights::{LinearW, LoraW};
use kernels::DType;
use kernels::act::Act;

impl Exec<'_> {
    /// `x W^T + bias + add` with what `w` has beside its matrix.
    pub(crate) fn added(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Buf {
        let Some(neck) = w.added.neck else { return self.changed(x, w, add) };
        let (read, whole) = if neck.sum {
            let whole = self.changed(x, w, add);
            (self.maybe_norm(whole, neck.after), whole)
        } else {
            let y = self.changed(x, w, None);
            (y, self.affine(y, None, None, add))
        };
        let inner = self.product(read, neck.down, Some(neck.down_bias), neck.width, DType::F32, None);
        let inner = self.act(neck.act, inner, None);
        let out = self.product(inner, neck.up, None, w.n, DType::F32, Some(whole));
        self.affine(out, None, Some(neck.up_bias), None)
    }

    /// The same without a small MLP.
    fn changed(&mut self, x: Buf, w: &LinearW, add: Option<Buf>) -> Buf {
        let delta = w.added.lora.map(|lora| self.narrow(x, w, lora, add)).or(add);
        let input = w.added.inputs.map_or(x, |factors| self.affine(x, Some(factors), None, None));
        let dora = w.added.lora.and_then(|lora| lora.dora).map(|dora| (dora.gains, dora.shifts));
        let Some((factors, shifts)) = dora.or(w.added.outputs.map(|factors| (factors, None))) else {
            return self.product(input, w.w, w.bias, w.n, w.dtype, delta);
        };
        let y = self.product(input, w.w, w.bias, w.n, w.dtype, None);
        self.affine(y, Some(factors), shifts, delta)
    }

    /// `scale B A x + add`, with magnitudes `gains * scale B A x + add`.
    fn narrow(&mut self, x: Buf, w: &LinearW, lora: LoraW, add: Option<Buf>) -> Buf {
        let mut down = self.product(x, lora.a, None, lora.rank, DType::F32, None);
        if lora.scale != 1.0 {
            down = self.act(Act::Scale(lora.scale), down, None);
        }
        match lora.dora {
            None => self.product(down, lora.b, None, w.n, DType::F32, add),
            Some(dora) => {
                let up = self.product(down, lora.b, None, w.n, DType::F32, None);
                self.affine(up, Some(dora.gains), None, add)
            }
        }
    }
}
