//! Floor 3: the regular expressions that adapters name modules with, as Python's `re` reads them: letters, classes, groups,
//! alternatives and repetitions. Knows no adapters.
//!
//! Whether a name matches is found from the set of all places that a part of the expression can end at, so nothing is tried
//! twice; repetitions within repetitions are bounded by a number of steps.

use std::cell::Cell;
use std::ops::RangeInclusive;

/// Longest expression that is read.
const LONGEST: usize = 4096;
/// Deepest nesting.
const DEEPEST: usize = 64;
/// Most times that a part can be asked to repeat.
const MOST: usize = 1000;
/// Most parts that are tried on a name.
const STEPS: usize = 100_000;

/// An expression.
#[derive(Debug)]
pub struct Pattern(Node);

#[derive(Debug)]
enum Node {
    /// One of these characters, or none of them.
    One {
        ranges: Vec<RangeInclusive<char>>,
        not: bool,
    },
    Sequence(Vec<Node>),
    Either(Vec<Node>),
    Repeat {
        of: Box<Node>,
        least: usize,
        most: usize,
    },
    Begin,
    End,
}

impl Pattern {
    /// Reads an expression.
    ///
    /// # Errors
    /// What of it is not understood.
    pub fn new(text: &str) -> Result<Pattern, String> {
        if text.len() > LONGEST {
            return Err(format!("is longer than {LONGEST} bytes"));
        }
        let mut parser = Parser { chars: text.chars().collect(), at: 0 };
        let node = parser.either(0)?;
        match parser.peek() {
            None => Ok(Pattern(node)),
            Some(_) => Err("has `)` without `(`".to_owned()),
        }
    }

    /// Whether all of `name` matches (`re.fullmatch`).
    ///
    /// # Errors
    /// That it takes too many steps to find out.
    pub fn matches(&self, name: &str) -> Result<bool, String> {
        self.ends_with(name, |at, _| at == 0)
    }

    /// Whether the end of `name` matches, from its beginning or behind any of its dots (peft's `get_pattern_key`).
    ///
    /// # Errors
    /// As [`Pattern::matches`].
    pub fn matches_end(&self, name: &str) -> Result<bool, String> {
        self.ends_with(name, |at, chars| at == 0 || chars[at - 1] == '.')
    }

    fn ends_with(&self, name: &str, begins: impl Fn(usize, &[char]) -> bool) -> Result<bool, String> {
        let text: Vec<char> = name.chars().collect();
        let starts: Vec<bool> = (0..=text.len()).map(|at| begins(at, &text)).collect();
        let left = Cell::new(STEPS);
        let ends = Walk { text: &text, left: &left }.ends(&self.0, starts);
        if left.get() == 0 {
            return Err("repeats within repetitions too often".to_owned());
        }
        Ok(ends[text.len()])
    }
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    text: &'a [char],
    left: &'a Cell<usize>,
}

impl Walk<'_> {
    /// Where `node` can end, of all places where it can begin.
    fn ends(self, node: &Node, mut starts: Vec<bool>) -> Vec<bool> {
        self.left.set(self.left.get().saturating_sub(1));
        if self.left.get() == 0 {
            return starts;
        }
        match node {
            Node::One { ranges, not } => {
                let mut out = vec![false; starts.len()];
                for (at, c) in self.text.iter().enumerate() {
                    let known = ranges.iter().any(|range| range.contains(c));
                    out[at + 1] = starts[at] && known != *not;
                }
                out
            }
            Node::Sequence(list) => list.iter().fold(starts, |starts, node| self.ends(node, starts)),
            Node::Either(list) => {
                let mut out = vec![false; starts.len()];
                list.iter().for_each(|node| _ = unite(&mut out, &self.ends(node, starts.clone())));
                out
            }
            Node::Repeat { of, least, most } => {
                for _ in 0..*least {
                    starts = self.ends(of, starts);
                }
                let mut out = starts.clone();
                for _ in *least..*most {
                    starts = self.ends(of, starts);
                    if !unite(&mut out, &starts) {
                        break;
                    }
                }
                out
            }
            Node::Begin => starts.iter().enumerate().map(|(at, start)| *start && at == 0).collect(),
            Node::End => {
                starts.iter().enumerate().map(|(at, start)| *start && at == self.text.len()).collect()
            }
        }
    }
}

/// Adds places; whether any was new.
fn unite(out: &mut [bool], more: &[bool]) -> bool {
    let mut grown = false;
    for (out, more) in out.iter_mut().zip(more) {
        grown |= *more && !*out;
        *out |= more;
    }
    grown
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek();
        self.at += 1;
        next
    }

    fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn either(&mut self, depth: usize) -> Result<Node, String> {
        if depth > DEEPEST {
            return Err(format!("is nested deeper than {DEEPEST} times"));
        }
        let mut list = Vec::new();
        loop {
            let mut sequence = Vec::new();
            while self.peek().is_some_and(|c| c != '|' && c != ')') {
                let node = self.one(depth)?;
                sequence.push(self.repeated(node)?);
            }
            list.push(Node::Sequence(sequence));
            if !self.skip('|') {
                return Ok(Node::Either(list));
            }
        }
    }

    fn one(&mut self, depth: usize) -> Result<Node, String> {
        let literal = |c| Node::One { ranges: vec![c..=c], not: false };
        match self.next() {
            Some('(') => {
                if self.skip('?') && !self.skip(':') {
                    return Err(
                        "has a group `(?` of another kind than `(?:`, which is not supported".to_owned()
                    );
                }
                let node = self.either(depth + 1)?;
                if self.skip(')') { Ok(node) } else { Err("has `(` without `)`".to_owned()) }
            }
            Some('[') => self.class(),
            Some('.') => Ok(Node::One { ranges: vec!['\n'..='\n'], not: true }),
            Some('^') => Ok(Node::Begin),
            Some('$') => Ok(Node::End),
            Some('\\') => {
                let (ranges, not) = self.escaped()?;
                Ok(Node::One { ranges, not })
            }
            Some(c @ ('*' | '+' | '?')) => Err(format!("has `{c}` with nothing before it")),
            Some(c) => Ok(literal(c)),
            None => Err("ends too soon".to_owned()),
        }
    }

    fn escaped(&mut self) -> Result<(Vec<RangeInclusive<char>>, bool), String> {
        let word = || vec!['a'..='z', 'A'..='Z', '0'..='9', '_'..='_'];
        let space = || vec![' '..=' ', '\t'..='\r'];
        Ok(match self.next() {
            Some('d') => (vec!['0'..='9'], false),
            Some('D') => (vec!['0'..='9'], true),
            Some('w') => (word(), false),
            Some('W') => (word(), true),
            Some('s') => (space(), false),
            Some('S') => (space(), true),
            Some(c) if !c.is_alphanumeric() => (vec![c..=c], false),
            Some(c) => return Err(format!("has `\\{c}`, which is not supported")),
            None => return Err("ends in `\\`".to_owned()),
        })
    }

    fn class(&mut self) -> Result<Node, String> {
        let (not, mut ranges, open) = (self.skip('^'), Vec::new(), "has `[` without `]`");
        loop {
            let first = match self.next().ok_or(open)? {
                ']' if !ranges.is_empty() => return Ok(Node::One { ranges, not }),
                '\\' => match self.escaped()? {
                    (mut some, false) if some.len() > 1 || some[0].start() != some[0].end() => {
                        ranges.append(&mut some);
                        continue;
                    }
                    (some, false) => *some[0].start(),
                    (_, true) => return Err("negates a class within `[]`, which is not supported".to_owned()),
                },
                c => c,
            };
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|c| *c != ']');
            self.at += usize::from(is_range);
            let last = if is_range { self.next().ok_or(open)? } else { first };
            ranges.push(first..=last);
        }
    }

    /// `node` as often as what follows it says. Whether the most or the fewest are tried first makes no difference here.
    fn repeated(&mut self, node: Node) -> Result<Node, String> {
        let (least, most) = match self.peek() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some('{') => return self.counted(node),
            _ => return Ok(node),
        };
        self.at += 1;
        self.skip('?');
        Ok(Node::Repeat { of: Box::new(node), least, most })
    }

    fn counted(&mut self, node: Node) -> Result<Node, String> {
        let wrong = || "has `{` without `m}`, `m,}` or `m,n}`".to_owned();
        let rest: String = self.chars[self.at + 1..].iter().take_while(|c| **c != '}').collect();
        self.at += rest.chars().count() + 1;
        if !self.skip('}') {
            return Err(wrong());
        }
        self.skip('?');
        let number = |text: &str| text.parse().ok().filter(|n: &usize| *n <= MOST).ok_or_else(wrong);
        let (least, most) = match rest.split_once(',') {
            None => (number(&rest)?, number(&rest)?),
            Some((least, "")) => (number(least)?, usize::MAX),
            Some((least, most)) => (number(least)?, number(most)?),
        };
        Ok(Node::Repeat { of: Box::new(node), least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expressions with names that they match and names that they do not, as `re.fullmatch` of Python 3.11 finds.
    #[test]
    fn names_are_matched_as_python_does() {
        let cases: [(&str, &[&str], &[&str]); 9] = [
            (r".*\.(q|v)_proj", &["layers.0.q_proj", ".v_proj"], &["q_proj", "a.k_proj", "a.q_projx"]),
            (
                r"model\.layers\.[0-3]\.mlp\..*",
                &["model.layers.2.mlp.up_proj"],
                &["model.layers.4.mlp.up_proj"],
            ),
            (
                r".*layers\.(?:0|1\d)\.\w+",
                &["layers.0.a", "x.layers.12.bc_1"],
                &["layers.2.a", "layers.0.a.b"],
            ),
            (r"a{2,3}b?", &["aa", "aaab"], &["a", "aaaab"]),
            (r"(a*)*b", &["b", "aaaab"], &["aaaa"]),
            (r"[^.]+\.x", &["ab.x"], &["a.b.x", ".x"]),
            (r"[\d_-]+", &["1_2-3"], &["a"]),
            (r"^a$|b.c", &["a", "bxc"], &["aa", "bc"]),
            (r"", &[""], &["a"]),
        ];
        for (text, yes, no) in cases {
            let pattern = Pattern::new(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            yes.iter().for_each(|name| assert_eq!(pattern.matches(name), Ok(true), "{text}, {name}"));
            no.iter().for_each(|name| assert_eq!(pattern.matches(name), Ok(false), "{text}, {name}"));
        }
    }

    #[test]
    fn a_key_of_a_pattern_names_the_end_of_a_module() {
        let ends = |text: &str, name: &str| Pattern::new(text).unwrap().matches_end(name) == Ok(true);
        assert!(ends("q_proj", "model.layers.0.q_proj") && ends("q_proj", "q_proj"));
        assert!(!ends("q_proj", "model.layers.0.xq_proj") && !ends("q_proj", "q_proj.x"));
        assert!(ends(r"layers\.1\..*", "model.layers.1.mlp.up"));
        assert!(ends("^model.layers.1.q", "model.layers.1.q") && !ends("^layers.1.q", "model.layers.1.q"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in
            ["(a", "a)", "[a", "*a", r"\bx", "(?=a)", r"a\", "a{x}", "a{2", "a{1,9999}", r"[\D]", "(?P<n>a)"]
        {
            assert!(Pattern::new(text).is_err(), "{text}");
        }
        assert!(Pattern::new(&"(".repeat(4000)).is_err());
        let long = Pattern::new(&"(a*)*".repeat(200)).unwrap();
        assert_eq!(long.matches(&format!("{}b", "a".repeat(200))), Ok(false));
        let deep = format!("{}a{}", "(".repeat(30), "){900}".repeat(30));
        assert!(Pattern::new(&deep).unwrap().matches("aaa").is_err(), "it ends, and says so");
    }
}
