//! Typed reading of a TOML tree whose every value knows where it stands.
//!
//! A section is read by a function over its [`Table`] that asks for each key once. What was asked for is
//! what is known: when the function returns, every other key of the table is reported. So a new key is
//! one line, in the function of its section. A value that can not be read is reported and then missing,
//! and reading goes on, so that one run tells all problems.

use std::cell::{Cell, RefCell};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Source, Wrong, list, nearest, shown};

/// One step of the way to a value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Key(&'static str),
    Index(usize),
}

use Step::{Index, Key};

/// What reads one value: it says what is wrong, the table knows where.
pub(crate) trait ReadValue<T>: Fn(&DeValue<'_>) -> Result<T, Wrong> {}

impl<T, F: Fn(&DeValue<'_>) -> Result<T, Wrong>> ReadValue<T> for F {}

/// A table of the file. One that the file leaves out is empty and stands where its parent does, so that
/// its defaults and its missing keys need no code of their own.
pub(crate) struct Table<'a> {
    source: &'a Source<'a>,
    path: String,
    start: usize,
    entries: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
    sound: Cell<bool>,
}

impl<'a> Table<'a> {
    /// Reads the whole file by `read`.
    pub(crate) fn read_root<T>(
        source: &'a Source<'a>,
        entries: &'a DeTable<'a>,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        Self::read(source, String::new(), 0, Some(entries), read)
    }

    fn read<T>(
        source: &'a Source<'a>,
        path: String,
        start: usize,
        entries: Option<&'a DeTable<'a>>,
        read: impl FnOnce(&Self) -> T,
    ) -> T {
        let table = Self { source, path, start, entries, asked: RefCell::default(), sound: Cell::new(true) };
        let result = read(&table);
        table.report_unknown();
        result
    }

    fn report_unknown(&self) {
        let asked = self.asked.borrow();
        for key in self.entries.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let help = match nearest(name, &asked) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys here are {}", list(&asked)),
            };
            let path = join(&self.path, &shown(name));
            self.source.report(key.span().start, path, Wrong::new("unknown key").help(help));
        }
    }

    /// Whether the file has the key, with whatever value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Whether nothing was reported of this table so far. A rule that compares several keys would take the
    /// stand-in of one that could not be read for what the file says.
    pub(crate) fn is_sound(&self) -> bool {
        self.sound.get()
    }

    fn ask(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        self.entries?.get(key)
    }

    /// The value of a key that may be left out.
    pub(crate) fn optional<T>(&self, key: &'static str, read: impl ReadValue<T>) -> Option<T> {
        read(self.ask(key)?.get_ref()).map_err(|wrong| self.report(&[Key(key)], wrong)).ok()
    }

    /// The value of a key that must be there; `example` is what could stand behind the equals sign.
    pub(crate) fn required<T>(&self, key: &'static str, example: &str, read: impl ReadValue<T>) -> Option<T> {
        self.insist(key, example);
        self.optional(key, read)
    }

    /// The values of an array that must be there, `limit` at most. `None` if any of them is wrong.
    pub(crate) fn required_array<T>(
        &self,
        key: &'static str,
        example: &str,
        limit: usize,
        read: impl ReadValue<T>,
    ) -> Option<Vec<T>> {
        self.insist(key, example);
        let values = self.array(key, limit, read);
        values.filter(|_| self.has(key))
    }

    /// The values of an array, `limit` at most; none if the key is left out. `None` if any of them is wrong.
    pub(crate) fn array<T>(
        &self,
        key: &'static str,
        limit: usize,
        read: impl ReadValue<T>,
    ) -> Option<Vec<T>> {
        let Some(value) = self.ask(key) else { return Some(Vec::new()) };
        let value = value.get_ref();
        let DeValue::Array(values) = value else {
            self.report(&[Key(key)], unexpected("an array", value));
            return None;
        };
        self.limit(key, values.len(), limit);
        let item = |(index, value): (usize, &Spanned<DeValue>)| {
            read(value.get_ref()).map_err(|wrong| self.report(&[Key(key), Index(index)], wrong)).ok()
        };
        values.iter().take(limit).enumerate().map(item).collect::<Vec<_>>().into_iter().collect()
    }

    fn insist(&self, key: &'static str, example: &str) {
        if !self.has(key) {
            // Only a table that is left out as a whole has to be named: others are where the problem is
            // shown.
            let header = if self.entries.is_none() { format!("[{}] ", self.path) } else { String::new() };
            let help = format!("add {header}{key} = {example}");
            self.report(&[Key(key)], Wrong::new("this key is missing").help(help));
        }
    }

    /// The table of a key, empty if it is left out. `None` if the key has another type.
    pub(crate) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Table) -> T) -> Option<T> {
        let path = join(&self.path, key);
        match self.ask(key) {
            None => Some(Table::read(self.source, path, self.start, None, read)),
            Some(value) => match value.get_ref() {
                DeValue::Table(table) => {
                    Some(Table::read(self.source, path, value.span().start, Some(table), read))
                }
                DeValue::Array(_) => {
                    let header = without_indices(&join(&self.path, key));
                    let wrong = Wrong::new("expected one table, found an array");
                    self.report(&[Key(key)], wrong.help(format!("write [{header}], and only once")));
                    None
                }
                other => {
                    self.report(&[Key(key)], unexpected("a table", other));
                    None
                }
            },
        }
    }

    /// As [`Table::section`], but `None` as well if the key is left out.
    pub(crate) fn optional_section<T>(&self, key: &'static str, read: impl FnOnce(&Table) -> T) -> Option<T> {
        if self.has(key) {
            self.section(key, read)
        } else {
            self.asked.borrow_mut().push(key);
            None
        }
    }

    /// What is on or off, with keys of its own if it is on: a table, or `true` for one without keys. `None`
    /// if it is off, left out, or of another type.
    pub(crate) fn switch<T>(&self, key: &'static str, read: impl FnOnce(&Table) -> T) -> Option<T> {
        let value = self.ask(key)?;
        let entries = match value.get_ref() {
            DeValue::Boolean(false) => return None,
            DeValue::Boolean(true) => None,
            DeValue::Table(table) => Some(table),
            other => {
                self.report(&[Key(key)], unexpected("true, false or a table", other));
                return None;
            }
        };
        Some(Table::read(self.source, join(&self.path, key), value.span().start, entries, read))
    }

    /// Each table of an array of tables, at most `limit` of them; none if the key is left out.
    /// `None` if the key has another type.
    pub(crate) fn tables<T>(
        &self,
        key: &'static str,
        limit: usize,
        read: impl Fn(&Table) -> T,
    ) -> Option<Vec<T>> {
        let Some(value) = self.ask(key) else { return Some(Vec::new()) };
        let path = join(&self.path, key);
        let tables: Option<Vec<_>> = match value.get_ref() {
            DeValue::Array(values) => values.iter().map(as_table).collect(),
            _ => None,
        };
        let Some(tables) = tables else {
            let header = without_indices(&path);
            let wrong = Wrong::new("expected an array of tables");
            self.report(&[Key(key)], wrong.help(format!("begin each with [[{header}]]")));
            return None;
        };
        self.limit(key, tables.len(), limit);
        let read = |(index, (start, table))| {
            Table::read(self.source, format!("{path}[{index}]"), start, Some(table), &read)
        };
        Some(tables.into_iter().take(limit).enumerate().map(read).collect())
    }

    fn limit(&self, key: &'static str, len: usize, limit: usize) {
        if len > limit {
            let wrong = Wrong::new(format!("there are {len} of these, but at most {limit} are possible"));
            self.report(&[Key(key), Index(limit)], wrong.help("remove this one and those after it"));
        }
    }

    /// Reports what is wrong with the value `at`, or with the nearest of its parents that the file has.
    pub(crate) fn report(&self, at: &[Step], wrong: impl Into<Wrong>) {
        let path = at.iter().fold(self.path.clone(), |path, step| match step {
            Key(key) => join(&path, key),
            Index(index) => format!("{path}[{index}]"),
        });
        self.source.report(self.offset(at), path, wrong);
        self.sound.set(false);
    }

    /// Line of the value `at`, or of the nearest of its parents that the file has.
    pub(crate) fn line(&self, at: &[Step]) -> usize {
        self.source.line(self.offset(at))
    }

    /// Whether the file has a value `at` exactly this place.
    pub(crate) fn has_at(&self, at: &[Step]) -> bool {
        self.follow(at).1 == at.len()
    }

    fn offset(&self, at: &[Step]) -> usize {
        self.follow(at).0.map_or(self.start, |value| value.span().start)
    }

    /// The last value on the way to the one `at`, and how many steps lead to it.
    fn follow(&self, at: &[Step]) -> (Option<&'a Spanned<DeValue<'a>>>, usize) {
        let mut found: Option<&Spanned<DeValue>> = None;
        for (steps, step) in at.iter().enumerate() {
            let next = match (step, found.map(Spanned::get_ref)) {
                (Key(key), None) => self.entries.and_then(|entries| entries.get(*key)),
                (Key(key), Some(DeValue::Table(table))) => table.get(*key),
                (Index(index), Some(DeValue::Array(values))) => values.get(*index),
                _ => None,
            };
            if next.is_none() {
                return (found, steps);
            }
            found = next;
        }
        (found, at.len())
    }
}

fn as_table<'a>(value: &'a Spanned<DeValue<'a>>) -> Option<(usize, &'a DeTable<'a>)> {
    match value.get_ref() {
        DeValue::Table(table) => Some((value.span().start, table)),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// `service[3].backend` as its header in the file: `service.backend`.
fn without_indices(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

/// A value of the wrong type; `wanted` with its article.
pub(crate) fn unexpected(wanted: &str, found: &DeValue) -> Wrong {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Wrong::new(format!("expected {wanted}, found {found}"))
}
