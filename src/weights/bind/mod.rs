//! Floor 3: binds a family's names to the tensors of a file. Every tensor that the family has must be there, in its shape;
//! one that nothing uses means that the model is not what its config says.

mod head;
mod linear;
mod tables;
mod wishes;

use super::sites::{End, Role, Site, Sites, Slice};
use super::{AroundW, AttentionW, Layer, NormW, Origin, P, Param, StackW, VectorParam, Weights};
use crate::arch::{Arch, Around, Linear, Mlp, QkNorm, Stack};
use crate::error::{Error, Result};
use crate::format::tensors::{TensorRef, Tensors};
use kernels::quant;
use std::collections::{HashMap, HashSet};
use wishes::unwritten;
pub use wishes::{Fill, Wish};

impl Weights {
    /// Binds every tensor that `arch` names.
    ///
    /// # Errors
    /// `Tensor` for one that is missing, misshapen, of a type that cannot stand there, or that nothing uses.
    pub fn bind(arch: &Arch, tensors: &Tensors) -> Result<Weights> {
        let mut b = Binder::new(arch, tensors, None);
        let weights = b.all()?;
        b.unused()?;
        Ok(weights)
    }

    /// Every tensor that a file of such a model has, with what it is before anything is learnt.
    ///
    /// # Errors
    /// `Memory` for sizes that cannot be.
    #[cfg(feature = "train")]
    pub fn wishes(arch: &Arch) -> Result<Vec<Wish>> {
        let none = Tensors::default();
        let mut b = Binder::new(arch, &none, Some(Vec::new()));
        b.all()?;
        Ok(b.wishes.unwrap_or_default())
    }
}

impl<'a> Binder<'a> {
    fn new(arch: &'a Arch, tensors: &'a Tensors, wishes: Option<Vec<Wish>>) -> Binder<'a> {
        let (used, matrices) = (HashSet::new(), HashSet::new());
        Binder {
            arch,
            tensors,
            wishes,
            used,
            matrices,
            tables: HashMap::new(),
            params: Vec::new(),
            sites: Sites::new(arch.prefix),
            in_head: false,
        }
    }

    fn all(&mut self) -> Result<Weights> {
        let (arch, b) = (self.arch, self);
        let encoder = arch.encoder.as_ref().map(|stack| b.stack(stack)).transpose()?;
        let decoder = arch.decoder.as_ref().map(|stack| b.stack(stack)).transpose()?;
        let last = decoder.as_ref().or(encoder.as_ref()).map(|stack| stack.tokens);
        b.in_head = true;
        let head = b.head(&arch.head, last)?;
        let (params, matrices) = (std::mem::take(&mut b.params), std::mem::take(&mut b.matrices));
        let sites = std::mem::take(&mut b.sites);
        Ok(Weights { params, encoder, decoder, head, value: None, sites, matrices })
    }
}

struct Binder<'a> {
    arch: &'a Arch,
    tensors: &'a Tensors,
    /// Where there are no files: what was asked for.
    wishes: Option<Vec<Wish>>,
    used: HashSet<String>,
    matrices: HashSet<String>,
    /// Tables that were bound: two stacks may share one.
    tables: HashMap<String, P>,
    params: Vec<Param>,
    sites: Sites,
    /// Whether what is bound belongs to the head.
    in_head: bool,
}

impl<'a> Binder<'a> {
    /// The tensor's name in these files: with the family's prefix or, in a file saved from the bare model, without.
    fn named(&self, name: &str) -> Option<String> {
        let long = format!("{}{name}", self.arch.prefix);
        // Norms of the first BERT files have the names of TensorFlow; torch's attention has its own way to say `weight`.
        let (old, flat) = match name.rsplit_once('.') {
            Some((of, "weight")) => (format!("{of}.gamma"), format!("{of}_weight")),
            Some((of, "bias")) => (format!("{of}.beta"), format!("{of}_bias")),
            _ => Default::default(),
        };
        let older = self.arch.renamed.iter().find_map(|(new, older)| {
            let end = name.strip_prefix(new)?;
            Some(format!("{older}{end}"))
        });
        let others = [&old, &flat].map(|name| format!("{}{name}", self.arch.prefix));
        [long, name.to_owned()]
            .into_iter()
            .chain(others)
            .chain([old, flat])
            .chain(older)
            .find(|name| self.tensors.has(name))
    }

    /// The name of a tensor that was found.
    fn found(&self, name: &str) -> String {
        self.named(name).unwrap_or_default()
    }

    fn find(&mut self, name: &str, shape: &[usize], fill: Fill) -> Result<TensorRef> {
        let long = format!("{}{name}", self.arch.prefix);
        if let Some(wishes) = &mut self.wishes {
            if wishes.iter().all(|wish| wish.name != long) {
                wishes.push(Wish { name: long, shape: shape.to_vec(), fill });
            }
            return unwritten(shape);
        }
        if let Some(found) = self.named(name)
            && let Some(tensor) = self.tensors.get(&found)?
        {
            self.used.insert(found);
            return Ok(tensor.clone());
        }
        let what = format!("is missing; a model of family {} has it", self.arch.family);
        Err(Error::Tensor { file: self.tensors.file().to_owned(), tensor: long, what })
    }

    fn wrong(&self, tensor: &str, expected: &str, found: &TensorRef) -> Error {
        let what = format!("expected {expected}, found {} {:?}", found.dtype().name(), found.shape());
        Error::Tensor { file: found.file().to_owned(), tensor: tensor.to_owned(), what }
    }

    fn push(&mut self, param: Param) -> P {
        self.params.push(param);
        P(self.params.len() as u32 - 1)
    }

    /// All elements of a small dense tensor, whose shape (but for ones in front) is `shape`.
    fn floats(&mut self, name: &str, shape: &[usize], fill: Fill) -> Result<Vec<f32>> {
        let tensor = self.find(name, shape, fill)?;
        let dense = tensor.dtype().block() == 1 && !tensor.is_packed();
        let found = tensor.shape();
        let (ones, found) = found.split_at(found.len().saturating_sub(shape.len()));
        if found != shape || ones.iter().any(|n| *n != 1) || !dense {
            return Err(self.wrong(name, &format!("floats {shape:?}"), &tensor));
        }
        let mut all = vec![0.0; tensor.elements()];
        quant::dequantize_row(tensor.dtype(), tensor.bytes(), &mut all);
        Ok(all)
    }

    /// A whole tensor as a vector, with `shift` added.
    fn vector(&mut self, name: &str, len: usize, shift: f32, fill: f32) -> Result<P> {
        let mut values = self.floats(name, &[len], Fill::All(fill))?;
        if shift != 0.0 {
            values.iter_mut().for_each(|value| *value += shift);
        }
        let origin = Some(Origin { tensor: self.found(name), places: None, shift });
        Ok(self.push(Param::Vector(VectorParam { origin, ..VectorParam::computed(values) })))
    }

    fn computed_vector(&mut self, values: Vec<f32>) -> P {
        self.push(Param::Vector(VectorParam::computed(values)))
    }

    fn norm(&mut self, s: &Stack, name: &str, width: usize) -> Result<NormW> {
        if s.norm.plain {
            let gain = self.computed_vector(vec![1.0; width]);
            return Ok(NormW { gain, bias: None, width });
        }
        let gain = self.vector(&format!("{name}.weight"), width, s.norm.gain, 1.0 - s.norm.gain)?;
        let bias =
            if s.norm.bias { Some(self.vector(&format!("{name}.bias"), width, 0.0, 0.0)?) } else { None };
        let site = self.site(name, Role::Norm, gain, [width, 1]);
        self.sites.push(Site { bias, number: s.norm.gain, ..site });
        Ok(NormW { gain, bias, width })
    }

    /// A place without a bias, all rows of a module.
    fn site(&self, module: &str, role: Role, w: P, [n, k]: [usize; 2]) -> Site {
        let (module, head) = (module.to_owned(), self.in_head);
        let rows = Slice::all(n);
        Site {
            module,
            role,
            w,
            bias: None,
            n,
            k,
            rows,
            by_input: false,
            head,
            end: None,
            after: None,
            number: 0.0,
        }
    }

    /// A norm that there is where it has a name.
    fn maybe_norm(&mut self, s: &Stack, at: &str, name: &str) -> Result<Option<NormW>> {
        match name {
            "" => Ok(None),
            name => self.norm(s, &format!("{at}{name}"), s.d_model).map(Some),
        }
    }

    fn stack(&mut self, s: &Stack) -> Result<StackW> {
        let (names, width) = (&s.names, s.embed.width);
        let tokens = self.table(names.tokens, s.embed.vocab, width, s.embed.scale)?;
        let positions = self.positions(s)?;
        let types = match s.embed.types {
            0 => None,
            n => Some(self.table(names.types, n, width, 1.0)?),
        };
        let embed_norm = match names.embed_norm {
            "" => None,
            name => Some(self.norm(s, name, width)?),
        };
        let project = match width == s.d_model {
            true => None,
            false => Some(self.linear(s, "", &names.project, s.d_model, width)?),
        };
        let (bias, distances) = self.score_bias(s)?;
        let layers = (0..s.n_layers).map(|i| self.layer(s, i)).collect::<Result<_>>()?;
        let norm = self.maybe_norm(s, "", names.norm)?;
        let project_out = match names.project_out.name {
            "" => None,
            _ => Some(self.linear(s, "", &names.project_out, width, s.d_model)?),
        };
        Ok(StackW {
            tokens,
            positions,
            types,
            prompt: None,
            embed_norm,
            project,
            project_out,
            bias,
            distances,
            layers,
            norm,
        })
    }

    fn layer(&mut self, s: &Stack, i: usize) -> Result<Layer> {
        let (names, d) = (&s.names, s.d_model);
        let at = names.block.replace("{}", &i.to_string());
        let first = |name: &'static str| if i == 0 && name == names.not_in_first { "" } else { name };
        let around = Around { before: first(names.attn.before), ..names.attn };
        let attn = self.attention(s, &at, &around, [&names.q, &names.k, &names.v, &names.o])?;
        let [q, k, v, o] = &names.cross_qkvo;
        let cross = match s.attention().cross {
            true => Some(self.attention(s, &at, &names.cross, [q, k, v, o])?),
            false => None,
        };
        let gate = match s.mlp {
            Mlp::Gated(_) => Some(self.linear(s, &at, &names.gate, s.d_ff, d)?),
            Mlp::Plain(_) => None,
        };
        let layer = Layer {
            attn,
            cross,
            mlp: self.around(s, &at, &names.mlp)?,
            gate,
            up: self.linear(s, &at, &names.up, s.d_ff, d)?,
            down: self.linear(s, &at, &names.down, d, s.d_ff)?,
        };
        let halves = [
            Some((End::Attention, layer.attn.o.w, layer.attn.around)),
            layer.cross.as_ref().map(|cross| (End::Cross, cross.o.w, cross.around)),
            Some((End::Mlp, layer.down.w, layer.mlp)),
        ];
        for (end, w, around) in
            halves.into_iter().flatten().filter(|half| half.2.inner.is_none() && !s.parallel)
        {
            self.sites.set_end(w, end, &at, around.after);
        }
        Ok(layer)
    }

    fn attention(&mut self, s: &Stack, at: &str, around: &Around, of: [&Linear; 4]) -> Result<AttentionW> {
        let (d, q, kv) = (s.d_model, s.q_cols(), s.kv_cols());
        let widths = match s.attention().qk_norm {
            QkNorm::None => None,
            QkNorm::Head => Some([s.head_dim; 2]),
            QkNorm::Row => Some([q, kv]),
        };
        let qk_norm = match widths {
            None => None,
            Some(widths) => {
                let [of_q, of_k] = s.names.qk_norm.map(|name| format!("{at}{name}"));
                Some([self.norm(s, &of_q, widths[0])?, self.norm(s, &of_k, widths[1])?])
            }
        };
        Ok(AttentionW {
            around: self.around(s, at, around)?,
            q: self.linear(s, at, of[0], q, d)?,
            k: self.linear(s, at, of[1], kv, d)?,
            v: self.linear(s, at, of[2], kv, d)?,
            qk_norm,
            prefix: None,
            o: self.linear(s, at, of[3], d, q)?,
        })
    }

    fn around(&mut self, s: &Stack, at: &str, names: &Around) -> Result<AroundW> {
        Ok(AroundW {
            before: self.maybe_norm(s, at, names.before)?,
            inner: self.maybe_norm(s, at, names.inner)?,
            after: self.maybe_norm(s, at, names.after)?,
        })
    }

    /// A tensor that nothing uses means that the model is not what its config says.
    fn unused(&self) -> Result<()> {
        let matches = |name: &str, part: &str| {
            if part.ends_with('.') { name.starts_with(part) } else { name.ends_with(part) }
        };
        let ignored = |name: &str| self.arch.ignored.iter().any(|part| matches(name, part));
        let left = self.tensors.names().find(|name| !self.used.contains(*name) && !ignored(name));
        match left {
            None => Ok(()),
            Some(name) => Err(Error::Tensor {
                file: self.tensors.file().to_owned(),
                tensor: name.to_owned(),
                what: format!("is not part of a {} model with this config.json", self.arch.family),
            }),
        }
    }
}
