//! Vectors as they come, line by line, each with its number.

use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read};

use portcullis_control::policy::eval::Vector;

use crate::exit::UsageError;

/// Bytes of a line; a vector with thousands of groups is shorter.
const LONGEST: u64 = 1 << 20;

pub(super) struct Lines<'a, R> {
    name: &'a str,
    from: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

impl<'a, R: Read> Lines<'a, R> {
    /// `name` is for messages.
    pub(super) fn new(name: &'a str, from: R) -> Self {
        Self {
            name,
            from: BufReader::new(from),
            line: Vec::new(),
            number: 0,
        }
    }

    /// What is wrong with the line read last.
    pub(super) fn error(&self, error: &dyn Display) -> anyhow::Error {
        UsageError(format!("{}: line {}: {error}", self.name, self.number)).into()
    }

    fn parse(&self) -> anyhow::Result<Vector> {
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        if line.len() as u64 >= LONGEST {
            return Err(self.error(&format!("longer than {LONGEST} bytes")));
        }
        let text = str::from_utf8(line).map_err(|error| self.error(&error))?;
        Vector::parse(text).map_err(|error| self.error(&error))
    }
}

impl<R: Read> Iterator for Lines<'_, R> {
    type Item = anyhow::Result<Vector>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line.clear();
        self.number += 1;
        match (&mut self.from)
            .take(LONGEST)
            .read_until(b'\n', &mut self.line)
        {
            Ok(0) => None,
            Ok(_) => Some(self.parse()),
            Err(error) => Some(Err(self.error(&error))),
        }
    }
}
