//! What is wrong in a file, and where.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::fmt;

use crate::limits;

/// One thing that is wrong in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file as it was named by the caller.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Dotted path of the key, such as `service[0].backend[1].weight`; empty where there is none.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; help: {help}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    message: String,
    help: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// A file's bytes, and the problems found in it so far.
pub(crate) struct Source<'a> {
    file: &'a str,
    bytes: &'a [u8],
    newlines: Vec<usize>,
    found: RefCell<Vec<(usize, String, Wrong)>>,
    untold: Cell<usize>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        let newlines =
            bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
        Self { file, bytes, newlines, found: RefCell::default(), untold: Cell::new(0) }
    }

    /// Line of a byte offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < offset) + 1
    }

    /// Column of a byte offset in characters, from 1. A byte order mark is no character.
    fn column(&self, offset: usize) -> usize {
        let offset = offset.min(self.bytes.len());
        let start = match self.line(offset) {
            1 => {
                if self.bytes.starts_with("\u{feff}".as_bytes()) {
                    3
                } else {
                    0
                }
            }
            line => self.newlines[line - 2] + 1,
        };
        let before = self.bytes.get(start..offset).unwrap_or_default();
        before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1
    }

    /// Remembers a problem; `key` is the dotted path of what stands at `offset`.
    pub(crate) fn report(&self, offset: usize, key: String, wrong: impl Into<Wrong>) {
        let mut found = self.found.borrow_mut();
        if found.len() < limits::PROBLEMS {
            found.push((offset, key, wrong.into()));
        } else {
            self.untold.set(self.untold.get() + 1);
        }
    }

    /// All problems, in the order of their positions.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut found = self.found.take();
        found.sort_by_key(|(offset, ..)| *offset);
        if self.untold.get() > 0 {
            let wrong = Wrong::new(format!("{} more problems are not shown", self.untold.get()));
            found.push((self.bytes.len(), String::new(), wrong.help("mend these first")));
        }
        let problem = |(offset, key, wrong): (usize, String, Wrong)| Problem {
            file: self.file.to_owned(),
            line: self.line(offset),
            column: self.column(offset),
            key,
            message: wrong.message,
            help: wrong.help,
        };
        found.into_iter().map(problem).collect()
    }
}

/// Text from the file as it may stand in a message: short, and harmless to a terminal.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 64;
    let harmless = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    let shown: String = text.chars().take(LONGEST).map(harmless).collect();
    if text.chars().nth(LONGEST).is_some() { shown + "..." } else { shown }
}

/// [`shown`] in backticks.
pub(crate) fn quote(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// The candidate that `found` was most likely meant to be.
pub(crate) fn nearest<'c>(found: &str, candidates: &[&'c str]) -> Option<&'c str> {
    const LONGEST: usize = 64; // the distance takes the product of both lengths
    if found.len() > LONGEST {
        return None;
    }
    let found = found.to_lowercase();
    let distance = |candidate: &str| strsim::osa_distance(&found, candidate);
    // Of two that are equally near, the one that begins alike: typing goes wrong late in a word.
    let alike = |candidate: &str| found.chars().zip(candidate.chars()).take_while(|(a, b)| a == b).count();
    let best = candidates.iter().min_by_key(|word| (distance(word), Reverse(alike(word))))?;
    (distance(best) <= best.len().div_ceil(3)).then_some(*best)
}

/// `known` as a list for a message.
pub(crate) fn list(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let text = "\u{feff}ä = 1\r\nüü = 2\n";
        let source = Source::new("t", text.as_bytes());
        for (what, line, column) in [("ä", 1, 1), ("1", 1, 5), ("üü", 2, 1), ("2", 2, 6)] {
            let offset = text.find(what).unwrap();
            assert_eq!((source.line(offset), source.column(offset)), (line, column), "{what}");
        }
        assert_eq!((source.line(text.len()), source.column(text.len() + 9)), (3, 1));
    }

    #[test]
    fn problems_come_in_order_and_are_bounded() {
        let text = "x".repeat(3 * limits::PROBLEMS);
        let source = Source::new("t", text.as_bytes());
        for offset in (0..text.len()).rev() {
            source.report(offset, String::new(), Wrong::new("wrong"));
        }
        let problems = source.into_problems();
        assert_eq!(problems.len(), limits::PROBLEMS + 1);
        assert!(problems.is_sorted_by_key(|problem| (problem.line, problem.column)));
        let last = problems.last().unwrap().to_string();
        assert_eq!(last, "t:1:3001: 2000 more problems are not shown; help: mend these first");
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["rr", "wrr"];
        assert_eq!(nearest("wr", &known), Some("wrr"));
        assert_eq!(nearest("WRR", &known), Some("wrr"));
        assert_eq!(nearest("maglev", &known), None);
        assert_eq!(nearest(&"w".repeat(1 << 20), &known), None);
        assert_eq!(nearest("", &[]), None);
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quote("a\u{1b}[31m'\"\n"), "`a\\u{1b}[31m'\"\\n`");
        assert!(quote(&"long".repeat(1000)).len() < 100);
    }
}
