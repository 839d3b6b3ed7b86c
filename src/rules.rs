//! Floor 3: what a model's authors forbid or force at certain places of an answer, before anything is chosen, and when a
//! search for one ends. Knows no tensors and no text.

/// Rules of an answer, as `generation_config.json` gives them; the default has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// Tokens that end an answer.
    pub ends: Vec<u32>,
    /// An answer has at least so many tokens, those it was begun with included.
    pub min_length: usize,
    /// An answer has at least so many tokens beside those it was begun with.
    pub min_new_tokens: usize,
    /// No run of so many tokens appears twice (Paulus et al. 2017); 0: any may.
    pub no_repeat_ngram: usize,
    /// The first token after the one that an answer begins with.
    pub forced_first: Option<u32>,
    /// The last token where an answer reaches its longest.
    pub forced_last: Option<u32>,
    /// Tokens that never appear.
    pub suppress: Vec<u32>,
    /// Tokens that do not come first.
    pub begin_suppress: Vec<u32>,
    /// Sequences of tokens that never appear.
    pub bad_words: Vec<Vec<u32>>,
}

/// When a beam search is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EarlyStopping {
    /// When no beam that goes on is better, at its present length, than the worst that ended.
    #[default]
    Likely,
    /// When as many answers as there are beams have ended.
    Full,
    /// When no beam can become better at any length.
    Never,
}

/// Where an answer stands.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// All tokens so far.
    pub ids: &'a [u32],
    /// How many of them it was begun with.
    pub prompt: usize,
    /// How many it may come to have in all, where that is known.
    pub longest: usize,
}

impl Rules {
    /// Whether nothing is forbidden or forced.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Rules { ends: _, min_length, min_new_tokens, no_repeat_ngram, forced_first, forced_last, .. } =
            self;
        let numbers = [min_length, min_new_tokens, no_repeat_ngram].iter().all(|n| **n == 0);
        let lists = self.suppress.is_empty() && self.begin_suppress.is_empty() && self.bad_words.is_empty();
        numbers && lists && forced_first.is_none() && forced_last.is_none()
    }

    /// Makes what is forbidden next impossible in `logits` `[vocab]` (or log-probabilities), and what is forced the only
    /// choice.
    pub fn apply(&self, logits: &mut [f32], at: Place) {
        let n = at.ids.len();
        let mut ban = |id: u32| {
            if let Some(x) = logits.get_mut(id as usize) {
                *x = f32::NEG_INFINITY;
            }
        };
        if self.no_repeat_ngram > 0 && n + 1 >= self.no_repeat_ngram {
            let known = &at.ids[n + 1 - self.no_repeat_ngram..];
            for run in at.ids.windows(self.no_repeat_ngram).filter(|run| run.starts_with(known)) {
                ban(run[self.no_repeat_ngram - 1]);
            }
        }
        for word in &self.bad_words {
            if let Some((last, before)) = word.split_last()
                && at.ids.ends_with(before)
            {
                ban(*last);
            }
        }
        if n < self.min_length || n < at.prompt.saturating_add(self.min_new_tokens) {
            self.ends.iter().copied().for_each(&mut ban);
        }
        let forced = match n {
            1 if self.forced_first.is_some() => self.forced_first,
            n if n + 1 == at.longest => self.forced_last,
            _ => None,
        };
        if let Some(id) = forced {
            logits.fill(f32::NEG_INFINITY);
            if let Some(x) = logits.get_mut(id as usize) {
                *x = 0.0;
            }
            return;
        }
        self.suppress.iter().copied().for_each(&mut ban);
        if n == at.prompt {
            self.begin_suppress.iter().copied().for_each(&mut ban);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(rules: &Rules, ids: &[u32], prompt: usize, longest: usize) -> Vec<usize> {
        let mut logits = vec![0.5; 8];
        rules.apply(&mut logits, Place { ids, prompt, longest });
        (0..8).filter(|i| logits[*i] > f32::NEG_INFINITY).collect()
    }

    #[test]
    fn runs_do_not_repeat() {
        let rules = Rules { no_repeat_ngram: 2, ..Rules::default() };
        assert_eq!(left(&rules, &[1, 2, 1, 3, 1], 1, 99), [0, 1, 4, 5, 6, 7]);
        assert_eq!(left(&rules, &[], 0, 99).len(), 8);
        let rules = Rules { no_repeat_ngram: 1, ..Rules::default() };
        assert_eq!(left(&rules, &[1, 2], 1, 99), [0, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn ends_wait_and_forced_tokens_come() {
        let rules = Rules { ends: vec![2], min_new_tokens: 2, ..Rules::default() };
        assert!(!left(&rules, &[0, 5], 1, 99).contains(&2));
        assert!(left(&rules, &[0, 5, 5], 1, 99).contains(&2));
        let rules = Rules { forced_first: Some(3), forced_last: Some(2), ..Rules::default() };
        assert_eq!(left(&rules, &[0], 1, 9), [3]);
        assert_eq!(left(&rules, &[0, 1, 1], 1, 4), [2]);
        assert_eq!(left(&rules, &[0, 1], 1, 4).len(), 8);
    }

    #[test]
    fn words_are_banned_whole() {
        let rules = Rules { bad_words: vec![vec![4], vec![1, 6]], suppress: vec![7], ..Rules::default() };
        assert_eq!(left(&rules, &[1], 1, 99), [0, 1, 2, 3, 5]);
        assert_eq!(left(&rules, &[2], 1, 99), [0, 1, 2, 3, 5, 6]);
        assert_eq!(left(&rules, &[9_999_999], 1, 99).len(), 6);
    }
}
