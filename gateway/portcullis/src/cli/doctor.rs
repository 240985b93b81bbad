//! `portcullis doctor`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use portcullis_agent::doctor::{Check, checks_for};
use portcullis_control::{CertificateSource, PortalName};
use portcullis_proto::v1::{PortalCertificate, StatusRequest};
use serde_json::json;

use super::{Context, certificate};
use crate::admin::SocketError;
use crate::config::Config;
use crate::exit::Exit;
use crate::time;

/// Then somebody should have renewed files.
const FEW_DAYS: i64 = 14;

#[derive(Debug, Args)]
#[command(after_help = "\
Changes nothing. Exits with 1 when something has to be done.

Examples:
  portcullis doctor
  portcullis doctor --config /etc/portcullis/portcullis.toml")]
pub(super) struct DoctorArgs {
    /// Check for this configuration in place of the defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DoctorArgs {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let config = self
            .config
            .as_deref()
            .map(Config::load)
            .transpose()?
            .unwrap_or_default();
        let source = config.portal.certificate_source();
        let mut checks = tokio::task::spawn_blocking(move || checks_for(&config.agent)).await?;
        checks.push(control(&context).await);
        checks.extend(portal_certificate(&context, source).await);
        let ok = checks.iter().all(|check| check.ok);
        context.output.answer(
            || json!({ "ok": ok, "checks": checks }),
            || checks.iter().map(text_of).collect(),
        )?;
        Ok(if ok { Exit::Done } else { Exit::Failed })
    }
}

/// Whether control answers at its socket.
async fn control(context: &Context) -> Check {
    let answer = async {
        let status = context
            .admin()
            .await?
            .status(StatusRequest {})
            .await?
            .into_inner();
        anyhow::Ok(format!(
            "answers, version {}, revision {}",
            status.version, status.revision
        ))
    };
    let (ok, found, advice) = match answer.await {
        Ok(found) => (true, found, None),
        // A gateway whose control runs elsewhere has no socket, and needs none.
        Err(error) if matches!(error.downcast_ref(), Some(SocketError::Missing(_))) => (
            true,
            "does not run on this machine".to_owned(),
            Some(
                "unless it runs elsewhere: start `portcullis up` or `portcullis control`"
                    .to_owned(),
            ),
        ),
        Err(error) => (
            false,
            error.to_string(),
            Some("look at its log: journalctl -u portcullis-up -u portcullis-control".to_owned()),
        ),
    };
    Check {
        name: "control",
        ok,
        found,
        advice,
    }
}

/// Whether what is shown at the portal's name is in order: what control says of it, and where control
/// does not run, what is in the files.
async fn portal_certificate(
    context: &Context,
    source: Option<(PortalName, CertificateSource)>,
) -> Option<Check> {
    let running = async {
        let status = context.admin().await.ok()?.status(StatusRequest {}).await;
        status.ok()?.into_inner().portal_certificate
    };
    let found = match (running.await, source) {
        (Some(found), _) => found,
        (None, Some((name, source))) => match source.check(&name, time::now_ms()) {
            Ok(None) => return None,
            Ok(Some(not_after_ms)) => PortalCertificate {
                source: "files".into(),
                name: name.to_string(),
                not_after_ms,
                ..Default::default()
            },
            Err(error) => PortalCertificate {
                source: "files".into(),
                name: name.to_string(),
                problem: error.to_string(),
                ..Default::default()
            },
        },
        (None, None) => return None,
    };
    let left = certificate::days_left(&found);
    let advice = match left {
        None | Some(0) => Some("see docs/tls.md"),
        Some(..FEW_DAYS) if found.source == "files" => Some("renew the files: see docs/tls.md"),
        Some(_) if !found.problem.is_empty() => Some("see docs/tls.md"),
        Some(_) => None,
    };
    Some(Check {
        name: "portal certificate",
        ok: left.is_some_and(|days| days > 0) && found.problem.is_empty(),
        found: certificate::text_of(&found),
        advice: advice.map(str::to_owned),
    })
}

fn text_of(check: &Check) -> String {
    let mark = match (check.ok, &check.advice) {
        (true, None) => "ok     ",
        (true, Some(_)) => "ok, but",
        (false, _) => "PROBLEM",
    };
    let mut text = format!("{mark}  {}: {}\n", check.name, check.found);
    if let Some(advice) = &check.advice {
        text.push_str(&format!("         {advice}\n"));
    }
    text
}
