//! Packets in a file, decided one by one.

mod engine;
mod lines;

use std::fs::File as Opened;
use std::io::{self, BufWriter, Seek as _, Write};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use portcullis_agent::datapath::Trial;
use portcullis_control::policy::eval::Vector;
use portcullis_control::policy::{self, CompileError, CompiledPolicy};

use self::engine::Engine;
use self::lines::Lines;
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
    engine: Which,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// The decision's own code, in this process
    Userspace,
    /// The programs and tables of a gateway, in this machine's kernel, apart from any that run there;
    /// needs root
    Kernel,
}

impl Eval {
    pub(super) fn run(self) -> Result<Exit> {
        let file = File { file: self.policy };
        let (_, compiled) = policy::load(&file.read()?)
            .map_err(|refusal| Refused::offline(&file.name(), refusal))?;
        let name = self.vectors.display().to_string();
        let unreadable = |error| UsageError(format!("cannot read {name}: {error}"));
        let mut vectors = Opened::open(&self.vectors).map_err(unreadable)?;
        // Nothing is answered where a line is wrong, unless what comes cannot be read twice.
        if vectors.metadata().map_err(unreadable)?.is_file() {
            Lines::new(&name, &vectors).try_for_each(|vector| vector.map(drop))?;
            vectors.rewind().map_err(unreadable)?;
        }
        let engine = match self.engine {
            Which::Userspace => Engine::Userspace,
            Which::Kernel => Engine::Kernel(Box::new(Trial::open()?)),
        };
        let mut run = Run {
            unassigned: compiled.clone(),
            compiled,
            engine,
            loaded: None,
            out: BufWriter::new(io::stdout().lock()),
        };
        let decided = run.all(Lines::new(&name, &vectors));
        // What was decided before a failure is said.
        run.out.flush()?;
        decided?;
        Ok(Exit::Done)
    }
}

struct Run<W> {
    /// Without any class.
    unassigned: CompiledPolicy,
    /// With the classes of the users so far.
    compiled: CompiledPolicy,
    engine: Engine,
    /// How many classes the engine knows of these tables.
    loaded: Option<usize>,
    out: W,
}

impl<W: Write> Run<W> {
    fn all(&mut self, mut lines: Lines<'_, &Opened>) -> Result<()> {
        let mut waiting = Vec::with_capacity(TOGETHER);
        loop {
            let next = lines.next();
            let more = match next {
                Some(Ok(vector)) => {
                    let class = match self.compiled.assign(&vector.subject()) {
                        // The users so far have all the room: begin anew.
                        Err(CompileError::TooManyPolicies { .. }) => {
                            self.decide(&mut waiting)?;
                            self.compiled = self.unassigned.clone();
                            self.loaded = None;
                            self.compiled.assign(&vector.subject())
                        }
                        assigned => assigned,
                    };
                    match class {
                        Ok(class) => {
                            waiting.push((class, vector));
                            Ok(true)
                        }
                        Err(error) => Err(lines.error(&error)),
                    }
                }
                Some(Err(error)) => Err(error),
                None => Ok(false),
            };
            if waiting.len() == TOGETHER || !matches!(more, Ok(true)) {
                self.decide(&mut waiting)?;
            }
            if !more? {
                return Ok(());
            }
        }
    }

    /// Answers to these, in their order.
    fn decide(&mut self, waiting: &mut Vec<(u32, Vector)>) -> Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        let classes = self.compiled.tables().policies.len();
        if self.loaded != Some(classes) {
            self.engine.load(&self.compiled)?;
            self.loaded = Some(classes);
        }
        for (class, vector) in waiting.drain(..) {
            let answer = self.engine.decide(&self.compiled, class, &vector)?;
            serde_json::to_writer(&mut self.out, &answer)?;
            writeln!(self.out)?;
        }
        Ok(())
    }
}
