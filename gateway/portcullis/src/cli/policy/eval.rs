//! Packets in a file, decided one by one.

use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use portcullis_control::policy::eval::{Answer, Vector, evaluate};
use portcullis_control::policy::{self, CompiledPolicy};

use super::File;
use crate::exit::{Exit, UsageError};
use crate::refused::Refused;

/// Vectors that are decided with one set of tables: no more classes than one policy has room for.
const TOGETHER: usize = policy::limits::EFFECTIVE_POLICIES;

#[derive(Debug, Args)]
pub(super) struct Eval {
    /// The policy, TOML
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// The packets, one JSON object a line
    #[arg(long, value_name = "FILE")]
    vectors: PathBuf,
    /// What decides
    #[arg(long, value_enum, default_value = "userspace")]
    engine: Engine,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    /// The decision's own code, in this process
    Userspace,
}

impl Eval {
    pub(super) fn run(self) -> Result<Exit> {
        let file = File { file: self.policy };
        let (_, compiled) = policy::load(&file.read()?)
            .map_err(|refusal| Refused::offline(&file.name(), refusal))?;
        let vectors = read(&self.vectors)?;
        let mut out = BufWriter::new(io::stdout().lock());
        for vectors in vectors.chunks(TOGETHER) {
            let mut compiled = compiled.clone();
            let classes = vectors
                .iter()
                .map(|vector| compiled.assign(&vector.subject()))
                .collect::<Result<Vec<u32>, _>>()
                .map_err(|error| UsageError(error.to_string()))?;
            let answers = match self.engine {
                Engine::Userspace => in_userspace(&compiled, &classes, vectors),
            };
            for answer in answers {
                serde_json::to_writer(&mut out, &answer)?;
                writeln!(out)?;
            }
        }
        out.flush()?;
        Ok(Exit::Done)
    }
}

/// All of them, so that nothing is answered where one is wrong.
fn read(path: &PathBuf) -> Result<Vec<Vector>> {
    let name = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| UsageError(format!("cannot read {name}: {error}")))?;
    let vector = |(i, line): (usize, &str)| {
        Vector::parse(line).map_err(|error| UsageError(format!("{name}: line {}: {error}", i + 1)))
    };
    let vectors = text.lines().enumerate().map(vector);
    Ok(vectors.collect::<Result<_, UsageError>>()?)
}

fn in_userspace(compiled: &CompiledPolicy, classes: &[u32], vectors: &[Vector]) -> Vec<Answer> {
    let each = classes.iter().zip(vectors);
    each.map(|(class, vector)| evaluate(compiled, *class, vector))
        .collect()
}
