//! Trutina's configuration.
//!
//! `words` is the vocabulary, `model` what a valid configuration says, `rules` what makes one valid, `limits`
//! how much it may say, and `network` where its addresses are. A leaf: nothing here knows of packets, DPDK or
//! sockets. Addresses are of either IP version everywhere; a rule that is about one of them says so.
//!
//! The journey of a file: [`load`] takes its bytes → [`parse`] makes a TOML tree with positions → `file`
//! reads it table by table, through `reader` (which keys, where) and `values` (which types) → `rules` judge
//! what it says, with `network` telling where addresses are → a [`model::Config`], or every [`Problem`] with
//! file, line, column, key and the fix. What arrives by the control socket is already a [`model::Service`] or
//! [`model::Backend`]; [`rules::check_service`] and [`rules::check_backend`] judge it alike.
//!
//! A new key is a field in `model` and one line in the function of its table in `file`; if it can be wrong in
//! ways of its own, a rule in `rules` as well. A file that says everything:
//!
//! ```toml
#![doc = include_str!("../tests/every-key.toml")]
//! ```

mod file;
pub mod limits;
pub mod model;
pub mod network;
mod problem;
mod reader;
pub mod rules;
mod values;
pub mod words;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::model::Config;
pub use crate::problem::Problem;
use crate::problem::{Source, Wrong, quote};
use crate::reader::Table;

/// Why a configuration file is not in force.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can not be read.
    #[error("cannot read {}; {source}; {}", path.display(), remedy(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What it says is not a configuration: every problem, in the order of the file, one a line.
    #[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create it, or name another file with --config",
        io::ErrorKind::PermissionDenied => "run as a user who may read it, or change its mode",
        _ => "name a regular file with --config",
    }
}

/// Reads the configuration file at `path`.
///
/// # Errors
/// [`LoadError`]: either the file can not be read, or everything that is wrong in it.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long, and ends a device that never does.
    let most = limits::FILE_LEN as u64 + 1;
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(io)?;
    let file_name = path.display().to_string();
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&file_name, text).map_err(LoadError::Invalid),
        Err(error) => {
            let wrong =
                Wrong::new("the file is not UTF-8 from here on").help("save it in the encoding UTF-8");
            let source = Source::new(&file_name, &bytes);
            source.report(error.valid_up_to(), String::new(), wrong);
            Err(LoadError::Invalid(source.into_problems()))
        }
    }
}

/// Reads a configuration from `text`; `file_name` is how problems name it.
///
/// # Errors
/// Everything that is wrong in it, in the order of the file.
pub fn parse(file_name: &str, text: &str) -> Result<Config, Vec<Problem>> {
    let source = Source::new(file_name, text.as_bytes());
    if text.len() > limits::FILE_LEN {
        let wrong = Wrong::new(format!("the file is longer than {} MiB", limits::FILE_LEN >> 20));
        source.report(0, String::new(), wrong.help("name a configuration file"));
        return Err(source.into_problems());
    }
    // What a broken tree says is not what was meant: only its breaks are told.
    let config = match DeTable::parse(text) {
        Ok(tree) => Table::read_root(&source, tree.get_ref(), file::config),
        Err(first) => {
            report_syntax(&source, text, first);
            None
        }
    };
    let problems = source.into_problems();
    config.filter(|_| problems.is_empty()).ok_or(problems)
}

fn report_syntax(source: &Source, text: &str, first: toml::de::Error) {
    // The parser keeps every error it finds, and in a long file that is no TOML at all they fill the memory.
    let all_fit = text.len() <= limits::SYNTAX_LEN;
    let errors = if all_fit { DeTable::parse_recoverable(text).1 } else { vec![first] };
    let mut last = None;
    for error in &errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        // One break, such as brackets that never close, is told once however deep it is.
        let this = Some((span.start, error.message()));
        if this != last {
            let found = text.get(span.clone()).filter(|found| !found.is_empty());
            let found = found.map(|found| format!(", at {}", quote(found))).unwrap_or_default();
            source.report(span.start, String::new(), Wrong::new(error.message().to_owned() + &found));
        }
        last = this;
    }
}
