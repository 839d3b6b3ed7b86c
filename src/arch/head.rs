//! Floor 3: what a model says about the states that its last stack returns, as data. Knows no names but its own tensors'.

use super::names::Linear;
use crate::error::{Error, Result};
use crate::format::config::Config;
use kernels::act::Act;

/// What a model was made to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing: states alone.
    Hidden,
    /// The next token.
    LanguageModel,
    /// A masked token.
    MaskedLm,
    /// A class of the whole text; with one label, a score (a reward, say).
    Classify,
    /// A class of each token.
    Tag,
    /// Where an answer begins and where it ends.
    Span,
}

impl Task {
    /// What the class that a model was saved from does, by the first of `architectures`; `default` where there is none.
    ///
    /// # Errors
    /// `Unsupported` for a class that does something else.
    pub fn of(c: &Config, default: Task) -> Result<Task> {
        const ENDS: &[(&str, Task)] = &[
            ("ForCausalLM", Task::LanguageModel),
            ("LMHeadModel", Task::LanguageModel),
            ("ForConditionalGeneration", Task::LanguageModel),
            ("MTModel", Task::LanguageModel),
            ("ForMaskedLM", Task::MaskedLm),
            ("ForPreTraining", Task::MaskedLm),
            ("ForSequenceClassification", Task::Classify),
            ("ForTokenClassification", Task::Tag),
            ("ForQuestionAnswering", Task::Span),
            ("Model", Task::Hidden),
        ];
        let Some(class) = class(c) else { return Ok(default) };
        let known = ENDS.iter().find(|(end, _)| class.ends_with(end) && !class.ends_with("DoubleHeadsModel"));
        known.map(|(_, task)| *task).ok_or_else(|| unknown(c, class))
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Task::Hidden => "hidden states",
            Task::LanguageModel => "language model",
            Task::MaskedLm => "masked language model",
            Task::Classify => "classification",
            Task::Tag => "token classification",
            Task::Span => "question answering",
        }
    }
}

/// The class that a model was saved from.
pub fn class(c: &Config) -> Option<&str> {
    c.raw("architectures")?.as_array()?.first()?.as_str()
}

/// A class whose head a family lacks.
pub fn unknown(c: &Config, class: &str) -> Error {
    let class: String = class.chars().take(64).collect();
    Error::Unsupported { file: c.file().to_owned(), what: format!("architectures = [\"{class}\"]") }
}

/// How many labels a classifier knows: `num_labels`, or as many as `id2label` names, or 2.
///
/// # Errors
/// `Format` where the number is none.
pub fn labels(c: &Config) -> Result<usize> {
    let named = c.raw("id2label").and_then(|v| v.as_object()).map(serde_json::Map::len);
    c.usize_or("num_labels", named.unwrap_or(2))
}

/// Which rows of a text the head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Each.
    All,
    /// The first, `[CLS]`.
    First,
    /// The last.
    Last,
    /// The mean of all.
    Mean,
    /// The last one of this token, which ends a text.
    End(u32),
}

/// `scale`, `dense`, `act`, `norm`, `out`, `cap`, one after the other, each where there is one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Head {
    /// What it is for.
    pub task: Task,
    /// What it reads.
    pub rows: Rows,
    /// What the states are multiplied by first.
    pub scale: f32,
    /// A linear, and how many outputs it has.
    pub dense: Option<(Linear, usize)>,
    /// What follows it.
    pub act: Option<Act>,
    /// A norm, with the stack's epsilon.
    pub norm: &'static str,
    /// What gives the logits.
    pub out: Out,
    /// A bias of the logits that is a tensor by itself, by its whole name.
    pub bias: &'static str,
    /// Whether that bias never learns: where such models are trained it is no parameter.
    pub constant: bool,
    /// Logits.
    pub n: usize,
    /// Logits become `cap * tanh(logit / cap)` (Gemma 2).
    pub cap: Option<f32>,
    /// Whether files may lack it.
    pub optional: bool,
}

/// What gives the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Out {
    /// Nothing: what came before is the answer.
    None,
    /// The embedding table of the last stack; a tensor of this name may be there as well.
    Tied(Linear),
    /// A linear.
    Linear(Linear),
}

impl Head {
    /// No head.
    pub const NONE: Head = Head {
        task: Task::Hidden,
        rows: Rows::All,
        scale: 1.0,
        dense: None,
        act: None,
        norm: "",
        out: Out::None,
        bias: "",
        constant: false,
        n: 0,
        cap: None,
        optional: false,
    };

    /// A language model's: the embedding table where `tied`, else a linear.
    #[must_use]
    pub const fn lm(name: Linear, tied: bool, vocab: usize) -> Head {
        let out = if tied { Out::Tied(name) } else { Out::Linear(name) };
        Head { task: Task::LanguageModel, out, n: vocab, ..Head::NONE }
    }

    /// A linear over the rows of a text that `rows` names.
    #[must_use]
    pub const fn classes(task: Task, rows: Rows, out: Linear, n: usize) -> Head {
        Head { task, rows, out: Out::Linear(out), n, ..Head::NONE }
    }
    /// A masked language model's: `dense`, `act`, `norm`, then the embedding table and `bias` where `tied`, else `decoder`
    /// with a bias of its own.
    #[must_use]
    pub const fn masked(
        dense: (Linear, usize),
        act: Act,
        norm: &'static str,
        decoder: Linear,
        bias: &'static str,
        tied: bool,
        vocab: usize,
    ) -> Head {
        let lm = Head::lm(decoder.bias(!tied), tied, vocab);
        let bias = if tied { bias } else { "" };
        Head { task: Task::MaskedLm, dense: Some(dense), act: Some(act), norm, bias, ..lm }
    }

    /// A classifier's: `dense` and `act` of the first row, then `out`.
    #[must_use]
    pub const fn first(dense: (Linear, usize), act: Act, out: Linear, n: usize) -> Head {
        Head { dense: Some(dense), act: Some(act), ..Head::classes(Task::Classify, Rows::First, out, n) }
    }

    /// What BART (and T5) say of a text that the decoder reads after the encoder: its class, by the state of the last end
    /// token, which is `end` where the config names none; or a span. Without a task, nothing.
    ///
    /// # Errors
    /// `Unsupported` for another task, `Format` for a number of labels that is none.
    pub fn of_pair(c: &Config, task: Task, d: usize, end: usize) -> Result<Head> {
        let linear = |name| Linear::new(name).bias(true);
        match task {
            Task::Hidden => Ok(Head::NONE),
            Task::Span => Ok(Head::classes(task, Rows::All, linear("qa_outputs"), 2)),
            Task::Classify => {
                let end = u32::try_from(c.usize_or("eos_token_id", end)?).unwrap_or(u32::MAX);
                let dense = (linear("classification_head.dense"), d);
                let out = linear("classification_head.out_proj");
                Ok(Head { rows: Rows::End(end), ..Head::first(dense, Act::Tanh, out, labels(c)?) })
            }
            _ => Err(unknown(c, class(c).unwrap_or_default())),
        }
    }

    /// BERT's pooler, which a model may lack: the hyperbolic tangent of `dense` of the first row.
    #[must_use]
    pub const fn pooler(dense: (Linear, usize)) -> Head {
        Head { rows: Rows::First, dense: Some(dense), act: Some(Act::Tanh), optional: true, ..Head::NONE }
    }
}
