//! Floor 3: what several adapters do to a model together, place by place. Knows no programs.
//!
//! Each adapter alone would return something else than the model does; together they add these differences, each times its
//! weight: `out = base + sum of weight * (adapted - base)`, in every module. Of modules that are linear in their
//! parameters this is the same as adding the differences of the parameters, which is what merging does.

use super::config::{Kind, MAX_SCALE};
use super::{Adapter, Lora, Module, Neck, Place};
use crate::error::{Error, Result};
use crate::weights::{P, Param, Role, Site, Weights};
use std::sync::Arc;

/// Most adapters at once.
const MOST: usize = 64;

/// Columns of narrow products are set aside in multiples of this.
const STEP: usize = 16;

/// What rows of one call need at a place: which verbs there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Need {
    /// Columns of the narrow products together.
    pub rank: u32,
    /// Whether there are whole matrices.
    pub full: bool,
    /// Columns of small MLPs behind the place together, and whether some read what comes before the residual, some the sum.
    pub neck: u32,
    /// See `neck`.
    pub raw: bool,
    /// See `neck`.
    pub sum: bool,
    /// Whether inputs are scaled.
    pub inputs: bool,
    /// Whether outputs are scaled or shifted; of a norm: whether it has other parameters.
    pub outputs: bool,
}

impl Need {
    /// Whether there is anything.
    pub fn any(self) -> bool {
        self != Need::default()
    }

    /// What rows of both need.
    #[must_use]
    pub fn and(self, other: Need) -> Need {
        Need {
            rank: self.rank.max(other.rank),
            full: self.full || other.full,
            neck: self.neck.max(other.neck),
            raw: self.raw || other.raw,
            sum: self.sum || other.sum,
            inputs: self.inputs || other.inputs,
            outputs: self.outputs || other.outputs,
        }
    }
}

/// A part of what happens at a place.
pub struct Piece {
    adapter: usize,
    place: Place,
    /// Of a narrow product: its first column among those of the place.
    pub at: usize,
    /// Of a narrow product: what `A x` is multiplied by. Of a whole matrix: its weight.
    pub scale: f32,
    /// What each output of the piece is multiplied by.
    pub gains: Option<Vec<f32>>,
}

/// What happens at a place.
#[derive(Default)]
pub struct Here {
    /// Narrow products.
    pub low: Vec<Piece>,
    /// Their columns together.
    columns: usize,
    /// Matrices in place of the model's own.
    pub full: Vec<Piece>,
    /// Small MLPs behind the place.
    pub necks: Vec<Piece>,
    wide: usize,
    reads: [bool; 2],
    /// `[k]`: what inputs are multiplied by.
    pub inputs: Option<Vec<f32>>,
    /// `[n]` twice: what the model's own outputs are multiplied by, and what is added then. Of a norm: gains and biases.
    pub outputs: Option<[Vec<f32>; 2]>,
}

/// Adapters with their weights, made for one model.
pub struct Grafts {
    /// The adapters.
    pub list: Vec<(Arc<Adapter>, f32)>,
    here: Vec<Here>,
    /// By place.
    pub needs: Vec<Need>,
    /// Stands for the page before the first one.
    pub root: u32,
}

impl Grafts {
    /// What `list` does to a model with these weights. Pages that are computed with it hang on `root`.
    ///
    /// # Errors
    /// `Argument` for adapters of another model, too many, weights that are no numbers, or two prompts.
    pub fn new(weights: &Weights, list: &[(Arc<Adapter>, f32)], root: u32) -> Result<Grafts> {
        check(weights, list)?;
        let mut here: Vec<Here> = weights.sites.list().iter().map(|_| Here::default()).collect();
        for (at, (adapter, weight)) in list.iter().enumerate() {
            for place in &adapter.places {
                let site = &weights.sites.list()[place.site as usize];
                here[place.site as usize].add(
                    weights,
                    site,
                    (at, *weight),
                    *place,
                    &adapter.modules[place.module],
                );
            }
        }
        let needs = here.iter().map(Here::need).collect();
        Ok(Grafts { list: list.to_vec(), here, needs, root })
    }

    /// Whether these are the adapters of `list`, with its weights.
    pub fn is(&self, list: &[(Arc<Adapter>, f32)]) -> bool {
        let name = |(adapter, weight): &(Arc<Adapter>, f32)| (adapter.id(), weight.to_bits());
        self.list.len() == list.len() && self.list.iter().map(name).eq(list.iter().map(name))
    }

    /// What happens at a place.
    pub fn here(&self, site: u32) -> &Here {
        &self.here[site as usize]
    }

    /// The module that a piece is of, and its part there.
    pub fn module(&self, piece: &Piece) -> (&Module, Place) {
        (&self.list[piece.adapter].0.modules[piece.place.module], piece.place)
    }

    /// The small MLP of a piece.
    pub fn neck(&self, piece: &Piece) -> &Neck {
        self.module(piece).0.neck.as_ref().expect("a piece of a small MLP")
    }

    /// The narrow product of a piece, and its part there.
    pub fn lora(&self, piece: &Piece) -> (&Lora, Place) {
        let (module, place) = self.module(piece);
        (module.lora.as_ref().expect("a piece of a narrow product"), place)
    }

    /// The adapter whose vectors come before a text, and how many.
    pub fn prompt(&self) -> Option<(&Adapter, usize)> {
        let list = self.list.iter().map(|(adapter, _)| &**adapter);
        let mut prompts = list.filter(|adapter| adapter.config().virtual_tokens > 0);
        prompts.next().map(|adapter| (adapter, adapter.config().virtual_tokens))
    }
}

/// Positions that adapters take before the first token.
pub fn lead_of(grafts: Option<&Arc<Grafts>>) -> usize {
    grafts.and_then(|grafts| grafts.prompt()).map_or(0, |(_, n)| n)
}

fn check(weights: &Weights, list: &[(Arc<Adapter>, f32)]) -> Result<()> {
    let refused = |what| Err(Error::Argument { name: "adapters", what });
    if list.len() > MOST {
        return refused(format!("expected at most {MOST}, found {}", list.len()));
    }
    let own = weights.sites.id();
    for (adapter, weight) in list {
        if adapter.model() != own {
            return refused(format!("{} was opened for another model", adapter.name()));
        }
        if !weight.is_finite() || weight.abs() > MAX_SCALE {
            return refused(format!("expected weights of at most {MAX_SCALE}, found {weight}"));
        }
        let kind = adapter.config().kind;
        if matches!(kind, Kind::PromptTuning | Kind::PrefixTuning) && *weight != 1.0 {
            return refused(format!(
                "{}: a prompt is there or not: weight 1, found {weight}",
                adapter.name()
            ));
        }
    }
    let prompts = list.iter().filter(|(adapter, _)| adapter.config().virtual_tokens > 0);
    if prompts.count() > 1 {
        return refused("expected at most one prompt, found more".to_owned());
    }
    Ok(())
}

impl Here {
    fn add(
        &mut self,
        weights: &Weights,
        site: &Site,
        (adapter, weight): (usize, f32),
        place: Place,
        m: &Module,
    ) {
        let base = |p: Option<P>| match p.map(|p| &weights.params[p.0 as usize]) {
            Some(Param::Vector(v)) => v.values.clone(),
            _ => vec![0.0; place.n],
        };
        let own = |of: &[f32]| -> Vec<f32> { place.rows.rows(place.n).map(|row| of[row]).collect() };
        let (ones, bias) = (vec![1.0; place.n], base(site.bias));
        if site.role == Role::Norm {
            return self.norm(site, weight, [base(Some(site.w)), bias], m);
        }
        if let Some(lora) = &m.lora {
            let gains = lora.gains.as_ref().map(|gains| own(gains));
            if let Some(gains) = &gains {
                // The bias is no part of what has a length.
                let still: Vec<f32> = bias.iter().zip(gains).map(|(b, g)| b * g).collect();
                let [scales, shifts] = self.affine(place.n);
                toward(scales, weight, gains, &ones);
                toward(shifts, weight, &bias, &still);
            }
            if let Some(added) = &lora.bias {
                let gains = gains.as_ref().unwrap_or(&ones);
                let added: Vec<f32> = own(added).iter().zip(gains).map(|(b, g)| b * g).collect();
                toward(&mut self.affine(place.n)[1], weight * lora.scale, &added, &vec![0.0; place.n]);
            }
            self.low.push(Piece { adapter, place, at: self.columns, scale: weight * lora.scale, gains });
            self.columns += lora.rank;
        }
        if let Some(neck) = &m.neck {
            self.necks.push(Piece { adapter, place, at: self.wide, scale: weight * neck.scale, gains: None });
            self.wide += neck.width;
            self.reads[usize::from(neck.sum)] = true;
        }
        if let Some(inputs) = &m.inputs {
            let ones = vec![1.0; site.k];
            toward(self.inputs.get_or_insert_with(|| ones.clone()), weight, inputs, &ones);
        }
        if let Some(outputs) = &m.outputs {
            toward(&mut self.affine(place.n)[0], weight, &own(outputs), &ones);
        }
        if m.weight.is_some() {
            let gains = (weight != 1.0).then(|| vec![weight; place.n]);
            self.full.push(Piece { adapter, place, at: 0, scale: weight, gains });
        }
        if site.role == Role::Linear && (m.weight.is_some() || m.bias.is_some()) {
            let new = m.bias.as_ref().map_or_else(|| bias.clone(), |new| own(new));
            let [scales, shifts] = self.affine(place.n);
            if m.weight.is_some() {
                toward(scales, weight, &vec![0.0; place.n], &ones);
                toward(shifts, weight, &new, &vec![0.0; place.n]);
            } else {
                toward(shifts, weight, &new, &bias);
            }
        }
    }

    /// A norm's gains and biases, those that it has being `base`.
    fn norm(&mut self, site: &Site, weight: f32, base: [Vec<f32>; 2], m: &Module) {
        let [gains, biases] = self.outputs.get_or_insert_with(|| base.clone());
        if let Some(new) = &m.weight {
            let new: Vec<f32> = new.iter().map(|gain| gain + site.number).collect();
            toward(gains, weight, &new, &base[0]);
        }
        if let Some(new) = &m.bias {
            toward(biases, weight, new, &base[1]);
        }
    }

    /// Factors and what is added, those of a place that does not change them yet.
    fn affine(&mut self, n: usize) -> &mut [Vec<f32>; 2] {
        self.outputs.get_or_insert_with(|| [vec![1.0; n], vec![0.0; n]])
    }

    fn need(&self) -> Need {
        Need {
            // In steps, so that adapters of like ranks share programs.
            rank: self.columns.next_multiple_of(STEP) as u32,
            full: !self.full.is_empty(),
            neck: self.wide.next_multiple_of(STEP) as u32,
            raw: self.reads[0],
            sum: self.reads[1],
            inputs: self.inputs.is_some(),
            outputs: self.outputs.is_some(),
        }
    }
}

/// Moves `all` by `weight * (new - old)`.
fn toward(all: &mut [f32], weight: f32, new: &[f32], old: &[f32]) {
    for ((x, new), old) in all.iter_mut().zip(new).zip(old) {
        *x = (f64::from(*x) + f64::from(weight) * (f64::from(*new) - f64::from(*old))) as f32;
    }
}
