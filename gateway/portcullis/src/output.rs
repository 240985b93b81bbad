//! What a command prints: text for people or one JSON document for programs.

use std::io::{self, Write as _};

use clap::ValueEnum;
use portcullis_control::text::is_hidden;
use serde_json::{Value, json};

use crate::refused::Refused;

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One JSON document on stdout; errors are a JSON document on stderr.
    Json,
}

/// The one place that writes to stdout and stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints the answer in the form that was asked for; the other one is not made.
    pub(crate) fn answer(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &json())?;
                writeln!(out)?;
            }
            Format::Text => {
                let text = text();
                out.write_all(text.as_bytes())?;
                if !text.is_empty() && !text.ends_with('\n') {
                    writeln!(out)?;
                }
            }
        }
        out.flush()
    }

    /// Prints one of many answers: a line of text, or a JSON document on a line of its own.
    pub(crate) fn line(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{}", json())?,
            Format::Text => writeln!(out, "{}", printable(&text()))?,
        }
        out.flush()
    }

    /// One of many answers whose text has several lines.
    pub(crate) fn lines(
        self,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match self.format {
            Format::Json => writeln!(out, "{}", json())?,
            Format::Text => writeln!(out, "{}", printable_lines(&text()))?,
        }
        out.flush()
    }

    /// Something to know besides the answer; not part of a JSON answer.
    pub(crate) fn note(self, text: &str) {
        if !self.is_json() {
            eprintln!("{}", printable_lines(text));
        }
    }

    /// Reports the error that ends the command.
    pub(crate) fn error(self, error: &anyhow::Error) {
        match self.format {
            Format::Json => {
                let mut document = json!({ "error": describe(error) });
                if let Some(refused) = error.downcast_ref::<Refused>() {
                    document["problems"] = refused.json();
                }
                eprintln!("{document}");
            }
            Format::Text => eprintln!("{}", rendered(error)),
        }
    }
}

/// An error as the terminal gets it: what others said of it is a part.
fn rendered(error: &anyhow::Error) -> String {
    format!("error: {}", printable_lines(&describe(error)))
}

/// The error and its causes in one line; a cause that the text above it quotes already is left out.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = match cause.downcast_ref::<tonic::Status>() {
            Some(status) => status.message().to_owned(),
            None => cause.to_string(),
        };
        if text.is_empty() {
            text = part;
        } else if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
    }
    text
}

/// Rows under headings, each column as wide as its widest cell.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self {
            rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows
            .push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table, or `empty` when it has no rows.
    pub(crate) fn render(&self, empty: &str) -> String {
        if self.rows.len() == 1 {
            return format!("{empty}\n");
        }
        lines(&self.rows)
    }
}

/// Names and values in two columns.
#[derive(Default)]
pub(crate) struct Fields {
    rows: Vec<Vec<String>>,
}

impl Fields {
    pub(crate) fn field(mut self, name: &str, value: impl ToString) -> Self {
        let value = match value.to_string() {
            empty if empty.is_empty() => "-".to_owned(),
            value => printable(&value),
        };
        self.rows.push(vec![format!("{name}:"), value]);
        self
    }

    pub(crate) fn render(&self) -> String {
        lines(&self.rows)
    }
}

fn lines(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, &width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Hidden characters could move the cursor or change what the terminal shows: they are spelt out.
fn printable(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for character in cell.chars() {
        if is_hidden(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The same of a text that may have several lines.
fn printable_lines(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn columns_line_up_and_control_characters_do_not_reach_the_terminal() {
        let mut table = Table::new(&["NAME", "USER"]);
        table.row(["laptop".to_owned(), "ada".to_owned()]);
        table.row(["x".to_owned(), "\x1b[2J".to_owned()]);
        assert_eq!(
            table.render("none"),
            "NAME    USER\nlaptop  ada\nx       \\u{1b}[2J\n"
        );
        assert_eq!(Table::new(&["NAME"]).render("no users"), "no users\n");
    }

    #[test]
    fn text_that_turns_its_direction_is_spelt_out() {
        let mut table = Table::new(&["RULE"]);
        table.row(["a\u{202e}b\u{200b}é\"".to_owned()]);
        assert_eq!(table.render("none"), "RULE\na\\u{202e}b\\u{200b}é\"\n");
    }

    #[test]
    fn errors_and_notes_tell_the_terminal_nothing_and_keep_their_lines() {
        let status = tonic::Status::failed_precondition("gateway gw1: \x1b[2J\u{9b}2J\u{2066}\r");
        let error = anyhow::Error::from(status).context("no answer");
        let shown = rendered(&error);
        assert_eq!(
            shown,
            "error: no answer: gateway gw1: \\u{1b}[2J\\u{9b}2J\\u{2066}\\r"
        );
        assert_eq!(printable_lines("of \x1b[2J"), "of \\u{1b}[2J");
        assert_eq!(printable_lines("two\nlines"), "two\nlines");
    }

    #[test]
    fn an_error_names_its_causes_once() {
        let cause = io::Error::other("no such device");
        let error = Err::<(), _>(cause).context("cannot open wg0").unwrap_err();
        assert_eq!(describe(&error), "cannot open wg0: no such device");
        let quoting = Err::<(), _>(io::Error::other("full"))
            .context("disk: full")
            .unwrap_err();
        assert_eq!(describe(&quoting), "disk: full");
    }
}
