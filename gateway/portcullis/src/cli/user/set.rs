//! `portcullis user set`.

use anyhow::Result;
use clap::{ArgGroup, Args};
use portcullis_proto::v1::SetUserSsoRequest;
use serde_json::json;

use crate::cli::account::{self, Role};
use crate::cli::{Context, revocation};
use crate::exit::{Exit, UsageError};
use crate::time;

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true)))]
pub(super) struct Set {
    name: String,
    /// What the account is for
    #[arg(long, group = "change")]
    role: Option<Role>,
    /// The account at a provider
    #[arg(long, value_name = "PROVIDER:SUBJECT", group = "change")]
    sso: Option<String>,
    /// No account at this provider
    #[arg(long, value_name = "PROVIDER", group = "change")]
    no_sso: Option<String>,
    /// How long to wait for the gateways
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    wait: time::Span,
}

impl Set {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        if let Some(role) = self.role {
            return account::set_role(self.name, role, context).await;
        }
        let (provider, subject) = match (&self.sso, self.no_sso) {
            (Some(account), _) => match account.split_once(':') {
                Some((provider, subject)) if !subject.is_empty() => {
                    (provider.to_owned(), subject.to_owned())
                }
                _ => {
                    let text = format!(
                        "--sso {account}: it looks like google:113862474920572940, with the subject (sub) of the provider's tokens"
                    );
                    return Err(UsageError(text).into());
                }
            },
            (None, provider) => (provider.unwrap_or_default(), String::new()),
        };
        let request = SetUserSsoRequest {
            name: self.name.clone(),
            provider: provider.clone(),
            subject: subject.clone(),
            wait_ms: self.wait.as_millis(),
        };
        let mut admin = context.admin().await?;
        let status = admin.set_user_sso(request).await?.into_inner();
        let name = &self.name;
        let linked = (!subject.is_empty()).then_some(&subject);
        context.output.answer(
            || {
                json!({
                    "name": name,
                    "provider": provider,
                    "subject": linked,
                    "revocation": revocation::json(&status),
                })
            },
            || {
                let what = match linked {
                    Some(subject) => format!("User {name} is {subject} at {provider}."),
                    None => format!("User {name} has no account at {provider} any more."),
                };
                format!("{what}\n{}", revocation::text(&status))
            },
        )?;
        Ok(revocation::exit(&status))
    }
}
