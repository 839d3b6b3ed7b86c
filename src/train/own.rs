//! Floor 5: which parameters learn, what they are called, and private copies of them. Knows no runs.

use super::what::What;
use crate::arch::Head;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::weights::{
    AddedW, LearnedParam, LinearW, MatrixParam, P, Param, VectorParam, Weights, matrix_rows,
};

/// The model's own parameters that `what` says.
pub(super) fn chosen(weights: &Weights, head: &Head, what: &What) -> Result<Vec<P>> {
    let fits = |name: &str| match what {
        _ if head.constant && name == head.bias => false,
        What::Named(parts) => parts.iter().any(|part| name.contains(part.as_str())),
        _ => true,
    };
    let chosen: Vec<P> = names(weights).filter(|(_, name)| fits(name)).map(|(p, _)| p).collect();
    if chosen.is_empty() {
        let what = "expected parts of names of tensors, found none that fits".to_owned();
        return Err(Error::Argument { name: "what", what });
    }
    Ok(chosen)
}

/// Gives `weights` private copies of the matrices among `learned`. The served ones may be packed, or quantised: what learns
/// begins with what the files say.
pub(super) fn make_private(weights: &mut Weights, model: &Model, learned: &[P]) -> Result<()> {
    let filed = Weights::bind(model.arch(), model.tensors())?;
    for p in learned {
        if let Some(Param::Matrix(m)) = filed.params.get(p.0 as usize) {
            weights.params[p.0 as usize] = unfold(m)?;
        }
    }
    Ok(())
}

/// The name of the tensor that has a parameter, of those that a file has.
fn name(param: &Param) -> Option<&str> {
    match param {
        Param::Matrix(m) if !m.name.is_empty() => Some(&m.name),
        Param::Vector(v) => v.made.as_deref().or(v.origin.as_ref().map(|origin| origin.tensor.as_str())),
        Param::Learned(m) => Some(&m.name),
        Param::Matrix(_) => None,
    }
}

/// The same, another one for each part of a fused bias.
pub(super) fn own_name(param: &Param) -> Option<String> {
    let places = match param {
        Param::Vector(v) => v.origin.as_ref().and_then(|origin| origin.places.as_ref()),
        _ => None,
    };
    match (name(param)?, places.and_then(|places| places.first())) {
        (name, None | Some(0)) => Some(name.to_owned()),
        (name, Some(first)) => Some(format!("{name}.{first}")),
    }
}

fn names(weights: &Weights) -> impl Iterator<Item = (P, &str)> {
    weights.params.iter().enumerate().filter_map(|(i, param)| Some((P(i as u32), name(param)?)))
}

pub(super) fn elements(param: &Param) -> u64 {
    let [rows, cols] = param.shape();
    rows as u64 * cols as u64
}

/// Makes a private copy of a matrix in f32, a row per output.
fn unfold(m: &MatrixParam) -> Result<Param> {
    let w = m.matrix();
    let shape @ [n, k] = [w.n(), w.k()];
    let mut values = zeros(n * k)?;
    matrix_rows(&w, &mut values);
    Ok(Param::Learned(LearnedParam { name: m.name.clone(), origin: Some(m.clone()), values, shape }))
}

pub(super) fn zeros(n: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    let refused = |_| Error::Memory { what: "parameters that learn", bytes: n as u64 * 4 };
    values.try_reserve_exact(n).map_err(refused)?;
    values.resize(n, 0.0);
    Ok(values)
}

pub(super) fn add_value_head(weights: &mut Weights, cols: usize) -> LinearW {
    let at = weights.params.len() as u32;
    let values = vec![0.0; cols];
    let (name, shape) = ("value_head.weight".to_owned(), [1, cols]);
    weights.params.push(Param::Learned(LearnedParam { name, origin: None, values, shape }));
    weights.params.push(Param::Vector(VectorParam::made("value_head.bias".to_owned(), vec![0.0])));
    let (n, dtype, added) = (1, kernels::DType::F32, AddedW::default());
    let w = LinearW { w: P(at), bias: Some(P(at + 1)), n, dtype, added };
    weights.value = Some(w);
    w
}
