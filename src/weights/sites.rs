//! Floor 3: the places of a model that an adapter can be grafted onto, by the names that their modules have in the
//! library that trains adapters. Knows no adapters.

use super::{NormW, P};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What a place does with its parameters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// A product with a matrix `[n, k]`.
    Linear,
    /// A table `[n, k]` whose rows are looked up.
    Table,
    /// A norm of `n` elements.
    Norm,
}

/// A half of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Attention.
    Attention,
    /// Attention to a source.
    Cross,
    /// The MLP.
    Mlp,
}

impl End {
    /// What the adapters library calls the small MLPs behind it, in a block that has them itself.
    pub fn necks(self) -> &'static str {
        match self {
            End::Attention => "attention_adapters",
            End::Cross => "cross_attention_adapters",
            End::Mlp => "output_adapters",
        }
    }
}

/// Which rows of a fused tensor a layer has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// The first one.
    pub first: usize,
    /// Rows in all.
    pub whole: usize,
    /// Rows that follow each other, and rows of others between such runs.
    pub runs: Option<(usize, usize)>,
}

impl Slice {
    /// All of `n` rows.
    pub fn all(n: usize) -> Slice {
        Slice { first: 0, whole: n, runs: None }
    }

    /// Numbers of the rows, `n` in all.
    pub fn rows(self, n: usize) -> impl Iterator<Item = usize> {
        let (run, skip) = self.runs.unwrap_or((n.max(1), 0));
        (0..n).map(move |i| self.first + i / run * (run + skip) + i % run)
    }
}

/// A place. Its number in [`Sites`] is the same for every opening of the same model.
#[derive(Clone, Debug)]
pub struct Site {
    /// The module, without the family's prefix: `layers.0.self_attn.q_proj`.
    pub module: String,
    /// What it does.
    pub role: Role,
    /// Its matrix, or a norm's gain.
    pub w: P,
    /// Its bias.
    pub bias: Option<P>,
    /// Outputs; rows of a table; elements of a norm.
    pub n: usize,
    /// Inputs; the width of a table; 1 of a norm.
    pub k: usize,
    /// Which of the module's outputs, where it holds several layers.
    pub rows: Slice,
    /// Whether the module's own tensor has a row per input (`Conv1D`).
    pub by_input: bool,
    /// Whether it belongs to the head.
    pub head: bool,
    /// Which half of a block it ends, where its output is added to the residual as it is, and what the block's names begin with.
    pub end: Option<(End, String)>,
    /// The norm that follows the sum.
    pub after: Option<NormW>,
    /// What rows of a table are multiplied by; what is added to a norm's gains as they are stored.
    pub number: f32,
}

/// Every place of a model, in the order of the program.
#[derive(Clone, Default)]
pub struct Sites {
    list: Vec<Site>,
    /// By role and parameter; several places have one number where a tensor is shared by stacks.
    found: HashMap<(Role, P), u32>,
    prefix: &'static str,
    id: u64,
}

/// The number of the next model's places.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Sites {
    /// None yet, of a family whose names begin with `prefix`.
    pub fn new(prefix: &'static str) -> Sites {
        Sites { prefix, id: NEXT.fetch_add(1, Relaxed), ..Sites::default() }
    }

    /// Adds a place, unless its parameter has one already.
    pub fn push(&mut self, site: Site) {
        let next = self.list.len() as u32;
        if *self.found.entry((site.role, site.w)).or_insert(next) == next {
            self.list.push(site);
        }
    }

    /// The number of the place where `w` plays this role.
    pub fn find(&self, role: Role, w: P) -> Option<u32> {
        self.found.get(&(role, w)).copied()
    }

    /// All, by number.
    pub fn list(&self) -> &[Site] {
        &self.list
    }

    /// The whole name of a module, as the training library spells it.
    pub fn long_name(&self, site: &Site) -> String {
        if site.head { site.module.clone() } else { format!("{}{}", self.prefix, site.module) }
    }

    /// Numbers of the places that module `path` holds: under its long name or, where the adapter was trained on the bare
    /// model, its short one.
    pub fn of_module(&self, path: &str) -> Vec<u32> {
        let short = path.strip_prefix(self.prefix).unwrap_or(path);
        let own = |site: &Site| site.module == path || site.module == short;
        (0u32..).zip(&self.list).filter(|(_, site)| own(site)).map(|(i, _)| i).collect()
    }

    /// The product with `w` has this bias.
    pub fn set_bias(&mut self, w: P, bias: Option<P>) {
        if let Some(at) = self.find(Role::Linear, w) {
            self.list[at as usize].bias = bias;
        }
    }

    /// The product with `w` ends a half of the block whose names begin with `block`, before the norm `after`.
    pub fn set_end(&mut self, w: P, end: End, block: &str, after: Option<NormW>) {
        if let Some(at) = self.find(Role::Linear, w) {
            let site = &mut self.list[at as usize];
            (site.end, site.after) = (Some((end, block.to_owned())), after);
        }
    }

    /// The place of number `at` has `w` from now on.
    pub fn moved(&mut self, at: u32, w: P) {
        if let Some(site) = self.list.get_mut(at as usize) {
            site.w = w;
            self.found.insert((site.role, w), at);
        }
    }

    /// A number that only copies of these have.
    pub fn id(&self) -> u64 {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_slice_skip_what_belongs_to_others() {
        let slice = Slice { first: 2, whole: 12, runs: Some((2, 4)) };
        assert_eq!(slice.rows(4).collect::<Vec<_>>(), [2, 3, 8, 9]);
        assert_eq!(Slice::all(3).rows(3).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn a_module_has_a_long_name_and_a_short_one() {
        let site = |module: &str, w, head| Site {
            module: module.to_owned(),
            role: Role::Linear,
            w: P(w),
            bias: None,
            n: 4,
            k: 3,
            rows: Slice::all(4),
            by_input: false,
            head,
            end: None,
            after: None,
            number: 0.0,
        };
        let mut sites = Sites::new("model.");
        sites.push(site("layers.0.q", 0, false));
        sites.push(site("layers.0.q", 1, false));
        sites.push(site("lm_head", 2, true));
        sites.push(site("layers.0.q", 1, false));
        assert_eq!(sites.list().len(), 3, "one place for one parameter in one role");
        assert_eq!(sites.of_module("model.layers.0.q"), [0, 1]);
        assert_eq!(sites.of_module("layers.0.q"), [0, 1]);
        assert_eq!(sites.of_module("lm_head"), [2]);
        assert_eq!(sites.of_module("layers.1.q"), [0; 0]);
        assert_eq!((sites.find(Role::Linear, P(2)), sites.find(Role::Table, P(2))), (Some(2), None));
        sites.moved(2, P(7));
        assert_eq!((sites.find(Role::Linear, P(7)), sites.list()[2].w), (Some(2), P(7)));
    }
}
