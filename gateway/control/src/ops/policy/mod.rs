//! The policy: checked, applied, told, compared.

mod shadow;
mod view;

use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::json;

pub(crate) use shadow::ShadowStream;

use super::revocation::Affected;
use super::{ADMIN, Result, by_admin, found};
use crate::core::Core;
use crate::error::OperationError;
use crate::live::{self, Compiled, Live};
use crate::policy::{CompileError, CompiledPolicy, Subject, changes, reach};
use crate::store::policies::{self, PolicyRow};
use crate::store::{Write, locations, users};

/// What holds where no policy is applied, as a policy.
const GATE: &str =
    "[[rule]]\nname = \"(no policy)\"\nwho = [\"*\"]\nto = [\"0.0.0.0/0\", \"::/0\"]\n";

impl Core {
    /// Whether [`Self::apply_policy`] would take the text.
    pub(crate) async fn check_policy(&self, text: String) -> Result<v1::PolicyCheck> {
        let refused = |problems| v1::PolicyCheck {
            problems,
            ..v1::PolicyCheck::default()
        };
        let compiled = match live::load(text).await? {
            Ok(compiled) => compiled,
            Err(refusal) => return Ok(refused(view::problems(refusal))),
        };
        let mut read = self.store.read().await?;
        let subjects = subjects(policies::subjects(read.sql()).await?);
        read.end().await?;
        let classes = match compiled.classes(&subjects) {
            Ok(classes) => classes,
            Err(refusal) => return Ok(refused(view::problems(refusal))),
        };
        Ok(v1::PolicyCheck {
            problems: Vec::new(),
            rules: view::count(compiled.policy.rules().len()),
            prefixes: view::count(compiled.tables.prefix_count()),
            classes: view::count(classes.policies().len() - 1),
        })
    }

    /// Makes the text the live policy, or changes nothing and tells why.
    pub(crate) async fn apply_policy(
        &self,
        request: v1::ApplyPolicyRequest,
    ) -> Result<v1::ApplyPolicyResponse> {
        let refused = |problems| v1::ApplyPolicyResponse {
            problems,
            version: None,
            status: None,
        };
        let compiled = match live::load(request.text.clone()).await? {
            Ok(compiled) => Arc::new(compiled),
            Err(refusal) => return Ok(refused(view::problems(refusal))),
        };
        let mut write = self.store.change(self.now_ms()).await?;
        let subjects = subjects(policies::subjects(write.sql()).await?);
        if let Err(refusal) = compiled.classes(&subjects) {
            return Ok(refused(view::problems(refusal)));
        }
        let last = policies::live(write.sql()).await?;
        let row = PolicyRow {
            number: last.map_or(1, |last| last.number + 1),
            digest: view::digest(&request.text),
            rules: view::count(compiled.policy.rules().len()).into(),
            revision: write.revision(),
            applied_ms: write.now_ms(),
            applied_by: ADMIN.into(),
        };
        policies::insert(write.sql(), &row, &request.text).await?;
        write.mark_policy().await?;
        let detail = json!({ "number": row.number, "rules": row.rules, "sha256": row.digest });
        write
            .audit(by_admin("policy.apply", "policy", detail))
            .await?;
        let locations = locations::list(write.sql()).await?;
        let locations = locations.into_iter().map(|location| location.id).collect();
        // Before anybody asks for it: this is compiled once.
        self.policies.remember(&row.digest, compiled);
        let committed = Instant::now();
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: 0,
            locations,
            committed,
        };
        let wait = Duration::from_millis(request.wait_ms);
        Ok(v1::ApplyPolicyResponse {
            problems: Vec::new(),
            version: Some(view::version(row, String::new(), true)),
            status: Some(self.settle_within(affected, wait).await?),
        })
    }

    /// An applied policy with its text; number 0 is the live one.
    pub(crate) async fn get_policy(&self, number: u64) -> Result<v1::PolicyVersion> {
        let mut read = self.store.read().await?;
        let live = policies::live(read.sql()).await?.ok_or_else(|| {
            OperationError::Precondition(
                "no policy is applied: a session of two factors reaches everything".into(),
            )
        })?;
        let newest = live.number;
        let row = if number == 0 {
            live
        } else {
            let wanted = i64::try_from(number).unwrap_or(i64::MAX);
            found(
                "policy",
                &number.to_string(),
                policies::find(read.sql(), wanted),
            )
            .await?
        };
        let text = policies::source(read.sql(), row.number).await?;
        read.end().await?;
        let live = row.number == newest;
        Ok(view::version(row, text, live))
    }

    /// Every policy that was applied, newest first, without their text.
    pub(crate) async fn list_policies(&self) -> Result<v1::PolicyVersions> {
        let mut read = self.store.read().await?;
        let rows = policies::list(read.sql()).await?;
        read.end().await?;
        let versions = rows.into_iter().enumerate();
        let versions = versions.map(|(i, row)| view::version(row, String::new(), i == 0));
        Ok(v1::PolicyVersions {
            versions: versions.collect(),
        })
    }

    /// What a user may reach, and who may reach the user.
    pub(crate) async fn show_policy(&self, name: &str) -> Result<v1::PolicyReach> {
        let mut read = self.store.read().await?;
        let user = found("user", name, users::find(read.sql(), name)).await?;
        let mut groups = users::groups(read.sql()).await?;
        let live = self.policies.live(read.sql()).await?;
        read.end().await?;
        let subject = Subject {
            groups: groups.remove(&user.id).unwrap_or_default(),
            user: user.name,
        };
        let number = live.number();
        let lines = blocking({
            let subject = subject.clone();
            move || {
                let mut tables = tables_of(&live)?;
                let class = tables.assign(&subject)?;
                let lines = reach(&tables, class).into_iter();
                Ok(lines.map(|line| view::line(&tables, &line)).collect())
            }
        });
        Ok(v1::PolicyReach {
            lines: lines.await?,
            user: subject.user,
            groups: subject.groups,
            policy: number,
        })
    }

    /// Who would gain and who would lose what.
    pub(crate) async fn diff_policy(&self, text: String) -> Result<v1::PolicyDiff> {
        let mut read = self.store.read().await?;
        let subjects = subjects(policies::subjects(read.sql()).await?);
        let live = self.policies.live(read.sql()).await?;
        read.end().await?;
        let policy = live.number();
        let refused = |problems| v1::PolicyDiff {
            problems,
            policy,
            changes: Vec::new(),
        };
        let compiled = match live::load(text).await? {
            Ok(compiled) => compiled,
            Err(refusal) => return Ok(refused(view::problems(refusal))),
        };
        if let Err(refusal) = compiled.classes(&subjects) {
            return Ok(refused(view::problems(refusal)));
        }
        let changes = blocking(move || {
            let (mut old, mut new) = (tables_of(&live)?, compiled.tables);
            let found = changes(&mut old, &mut new, &subjects)?.into_iter();
            Ok(found
                .map(|change| view::change(&old, &new, change))
                .collect())
        });
        Ok(v1::PolicyDiff {
            problems: Vec::new(),
            policy,
            changes: changes.await?,
        })
    }

    /// To be called in every change that users or groups come with, when it is otherwise done: their
    /// classes follow, and must stay within the live policy's limits.
    ///
    /// Where this version cannot load the live policy, it permits nothing to anybody, and there are
    /// no limits to keep.
    pub(crate) async fn reclassify(&self, write: &mut Write<'_>) -> Result<()> {
        let Some(row) = policies::live(write.sql()).await? else {
            return Ok(());
        };
        let compiled = match self.policies.compiled(write.sql(), &row).await {
            Ok(compiled) => Some(compiled),
            Err(OperationError::Precondition(error)) => {
                tracing::error!(error, "nothing is permitted");
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(compiled) = compiled {
            let subjects = subjects(policies::subjects(write.sql()).await?);
            compiled.classes(&subjects).map_err(|refusal| {
                OperationError::Precondition(format!(
                    "the live policy does not permit this: {refusal}"
                ))
            })?;
        }
        write.mark_policy().await?;
        Ok(())
    }

    /// The same where users only go. Fewer of them need no more than before, so no policy can speak
    /// against it: taking access away always works.
    pub(crate) async fn declassify(&self, write: &mut Write<'_>) -> Result<()> {
        if policies::live(write.sql()).await?.is_some() {
            write.mark_policy().await?;
        }
        Ok(())
    }
}

fn subjects(users: Vec<(String, Subject)>) -> Vec<Subject> {
    users.into_iter().map(|(_, subject)| subject).collect()
}

/// The live tables, or those of [`GATE`].
fn tables_of(live: &Live) -> Result<CompiledPolicy> {
    match live.compiled() {
        Some(compiled) => Ok(compiled.tables.clone()),
        None => Compiled::load(GATE)
            .map(|gate| gate.tables)
            .map_err(|refusal| OperationError::Precondition(refusal.to_string())),
    }
}

/// Runs what takes a while with a large policy beside the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| OperationError::Precondition("reading the policy failed".into()))?
}

impl From<CompileError> for OperationError {
    fn from(error: CompileError) -> Self {
        Self::Precondition(error.to_string())
    }
}
