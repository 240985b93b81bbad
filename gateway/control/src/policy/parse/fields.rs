//! The values of a rule's keys, with the right type or a problem noted.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Document;
use crate::policy::problem::Fault;

/// A rule's table while it is read.
pub(super) struct Fields<'t> {
    pub(super) table: &'t DeTable<'t>,
    /// The rule's name, where it has one, for problems.
    pub(super) name: Option<&'t str>,
}

/// What stood at a key.
pub(super) enum Field<T> {
    /// Nothing.
    Absent,
    /// Something else than it must be; the problem is noted.
    Bad,
    Good(T),
}

impl<T> Field<T> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'t> Fields<'t> {
    pub(super) fn text(&self, document: &mut Document<'_>, key: &'static str) -> Field<&'t str> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        match value.get_ref().as_str() {
            Some(text) => Field::Good(text),
            None => {
                let found = kind(value.get_ref());
                self.problem(
                    document,
                    value,
                    Fault::WrongType {
                        key,
                        expected: "a string",
                        found,
                    },
                );
                Field::Bad
            }
        }
    }

    /// A string that `read` understands.
    pub(super) fn parsed<T>(
        &self,
        document: &mut Document<'_>,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, Fault>,
    ) -> Field<T> {
        let text = match self.text(document, key) {
            Field::Absent => return Field::Absent,
            Field::Bad => return Field::Bad,
            Field::Good(text) => text,
        };
        match read(text) {
            Ok(value) => Field::Good(value),
            Err(fault) => {
                if let Some(value) = self.table.get(key) {
                    self.problem(document, value, fault);
                }
                Field::Bad
            }
        }
    }

    /// A list of at least one string, each of which `read` understands.
    pub(super) fn list<T>(
        &self,
        document: &mut Document<'_>,
        key: &'static str,
        if_empty: &'static str,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Field<Vec<T>> {
        let Some(value) = self.table.get(key) else {
            return Field::Absent;
        };
        let expected = "a list of strings";
        let DeValue::Array(entries) = value.get_ref() else {
            let found = kind(value.get_ref());
            self.problem(
                document,
                value,
                Fault::WrongType {
                    key,
                    expected,
                    found,
                },
            );
            return Field::Bad;
        };
        if entries.is_empty() {
            self.problem(
                document,
                value,
                Fault::Empty {
                    key,
                    advice: if_empty,
                },
            );
            return Field::Bad;
        }
        let mut list = Vec::with_capacity(entries.len());
        for entry in entries.iter() {
            let read = match entry.get_ref().as_str() {
                Some(text) => read(text),
                None => Err(Fault::WrongType {
                    key,
                    expected,
                    found: kind(entry.get_ref()),
                }),
            };
            match read {
                Ok(item) => list.push(item),
                Err(fault) => self.problem(document, entry, fault),
            }
        }
        if list.len() == entries.len() {
            Field::Good(list)
        } else {
            Field::Bad
        }
    }

    pub(super) fn problem<V>(&self, document: &mut Document<'_>, at: &Spanned<V>, fault: Fault) {
        document.problem(at.span(), self.name, fault);
    }
}

/// What TOML calls such a value.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
