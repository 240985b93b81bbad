//! The policy that holds, and which of its classes each user is in.
//!
//! Both are functions of the store alone: whatever process reads the same state comes to the same
//! tables, numbers and id, so that a gateway which has applied a revision holds what any process
//! would send it for that revision.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_proto::v1;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use sqlx::AnyConnection;

use crate::error::OperationError;
use crate::policy::{self, Classes, CompiledPolicy, Policy, Refusal, Subject};
use crate::store::policies::{self, PolicyRow};
use crate::store::to_u64;

/// A policy file's tables, and what they are known by.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) policy: Policy,
    pub(crate) tables: CompiledPolicy,
    /// Of all that is sent of them, classes aside.
    hash: [u8; 32],
}

impl Compiled {
    /// Reads and compiles. Large files take a while: not for the threads that serve.
    pub(crate) fn load(source: &str) -> Result<Self, Refusal> {
        let (policy, tables) = policy::load(source)?;
        let hash = Sha256::digest(tables.to_wire(0, &[]).encode_to_vec()).into();
        Ok(Self {
            policy,
            tables,
            hash,
        })
    }

    /// What these users need of it, or what speaks against that.
    pub(crate) fn classes(&self, subjects: &[Subject]) -> Result<Classes, Refusal> {
        let classes = self.tables.classes(subjects);
        classes.map_err(|error| policy::refused(&self.policy, &error))
    }

    /// Changes with the content; never 0, which stands for no policy.
    fn id(&self, classes: &Classes) -> u64 {
        let mut hasher = Sha256::new();
        hasher.update(b"portcullis policy v1");
        hasher.update(self.hash);
        for class in classes.policies() {
            hasher.update(class.count.to_le_bytes());
            for principal in class.principals {
                hasher.update(principal.to_le_bytes());
            }
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = hash;
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(1)
    }
}

/// What holds as of one revision.
#[derive(Debug)]
pub(crate) struct Live {
    revision: u64,
    applied: Option<Applied>,
    by_user: HashMap<String, u32>,
}

#[derive(Debug)]
struct Applied {
    number: u64,
    id: u64,
    compiled: Arc<Compiled>,
    classes: Classes,
}

impl Live {
    /// The last revision that changed any of it.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Of the tables with their classes; 0 where no policy is applied.
    pub(crate) fn id(&self) -> u64 {
        self.applied.as_ref().map_or(0, |applied| applied.id)
    }

    /// Which one was applied; 0 for none.
    pub(crate) fn number(&self) -> u64 {
        self.applied.as_ref().map_or(0, |applied| applied.number)
    }

    /// The tables; `None` where no policy is applied.
    pub(crate) fn compiled(&self) -> Option<&Arc<Compiled>> {
        self.applied.as_ref().map(|applied| &applied.compiled)
    }

    /// The class of a user, by id; 0, nobody's, where there is no policy or no such user.
    pub(crate) fn class_of(&self, user_id: &str) -> u32 {
        self.by_user.get(user_id).copied().unwrap_or(0)
    }

    /// For the wire; `None` where no policy is applied.
    pub(crate) fn to_wire(&self) -> Option<v1::Policy> {
        self.applied.as_ref().map(|applied| {
            let classes = applied.classes.policies();
            applied.compiled.tables.to_wire(applied.id, classes)
        })
    }
}

/// Keeps what was compiled last.
#[derive(Debug, Default)]
pub(crate) struct Policies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// By the digest of the source.
    compiled: Option<(String, Arc<Compiled>)>,
    live: Option<Arc<Live>>,
}

impl Policies {
    /// What holds in the state of the store that this connection sees.
    pub(crate) async fn live(&self, sql: &mut AnyConnection) -> Result<Arc<Live>, OperationError> {
        let revision = to_u64(policies::revision(sql).await?);
        if let Some(live) = &self.lock().live
            && live.revision == revision
        {
            return Ok(live.clone());
        }
        let live = Arc::new(self.read(sql, revision).await?);
        self.lock().live = Some(live.clone());
        Ok(live)
    }

    /// The tables of an applied policy.
    pub(crate) async fn compiled(
        &self,
        sql: &mut AnyConnection,
        row: &PolicyRow,
    ) -> Result<Arc<Compiled>, OperationError> {
        if let Some((digest, compiled)) = &self.lock().compiled
            && *digest == row.digest
        {
            return Ok(compiled.clone());
        }
        let source = policies::source(sql, row.number).await?;
        let compiled = match load(source).await? {
            Ok(compiled) => Arc::new(compiled),
            Err(refusal) => {
                let text = format!(
                    "the applied policy {} cannot be loaded by this version: {refusal}",
                    row.number
                );
                return Err(OperationError::Precondition(text));
            }
        };
        self.lock().compiled = Some((row.digest.clone(), compiled.clone()));
        Ok(compiled)
    }

    /// Spares the next look-up the compiling.
    pub(crate) fn remember(&self, digest: &str, compiled: Arc<Compiled>) {
        self.lock().compiled = Some((digest.to_owned(), compiled));
    }

    /// The store may be another one, with the same revisions.
    pub(crate) fn forget(&self) {
        *self.lock() = Kept::default();
    }

    async fn read(&self, sql: &mut AnyConnection, revision: u64) -> Result<Live, OperationError> {
        let gate = Live {
            revision,
            applied: None,
            by_user: HashMap::new(),
        };
        let Some(row) = policies::live(sql).await? else {
            return Ok(gate);
        };
        let compiled = match self.compiled(sql, &row).await {
            Ok(compiled) => compiled,
            // Fail closed, and let revocations through: a policy without rules permits nothing.
            Err(OperationError::Precondition(error)) => {
                tracing::error!(error, "nothing is permitted");
                nothing()?
            }
            Err(error) => return Err(error),
        };
        let (ids, subjects): (Vec<String>, Vec<Subject>) =
            policies::subjects(sql).await?.into_iter().unzip();
        let classes = match compiled.classes(&subjects) {
            Ok(classes) => classes,
            // Cannot come about through this program, which refuses such users and groups.
            Err(refusal) => {
                tracing::error!(%refusal, "the users are over the policy's limits: nothing is permitted");
                compiled
                    .classes(&[])
                    .map_err(|refusal| OperationError::Precondition(refusal.to_string()))?
            }
        };
        let by_user = ids.into_iter().zip(classes.numbers().iter().copied());
        Ok(Live {
            revision,
            by_user: by_user.collect(),
            applied: Some(Applied {
                number: to_u64(row.number),
                id: compiled.id(&classes),
                compiled,
                classes,
            }),
        })
    }

    /// Valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`Compiled::load`] beside the threads that serve.
pub(crate) async fn load(source: String) -> Result<Result<Compiled, Refusal>, OperationError> {
    tokio::task::spawn_blocking(move || Compiled::load(&source))
        .await
        .map_err(|_| OperationError::Precondition("compiling the policy failed".into()))
}

/// No rules.
fn nothing() -> Result<Arc<Compiled>, OperationError> {
    let loaded = Compiled::load("");
    loaded
        .map(Arc::new)
        .map_err(|refusal| OperationError::Precondition(refusal.to_string()))
}
