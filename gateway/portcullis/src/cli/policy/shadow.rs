//! A candidate beside the live policy.

use std::io::{IsTerminal as _, Write as _, stdout};

use anyhow::{Context as _, Result};
use clap::Args;
use portcullis_proto::v1::{PolicyShadow, PolicyShadowRow, ShadowPolicyRequest};
use serde_json::{Value, json};

use super::{File, outcome};
use crate::cli::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::refused::Refused;
use crate::time::{self, Span};

/// Rows of a live table; the answer has them all.
const SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(super) struct Shadow {
    #[command(flatten)]
    file: File,
    /// How long to run
    #[arg(long = "for", value_name = "DURATION", default_value = "60s")]
    length: Span,
}

impl Shadow {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let request = ShadowPolicyRequest {
            text: self.file.read()?,
            for_ms: self.length.as_millis(),
        };
        let mut admin = context.admin().await?;
        let mut reports = admin.shadow_policy(request).await?.into_inner();
        let live = stdout().is_terminal() && !context.output.is_json();
        let last = loop {
            let report = reports
                .message()
                .await?
                .context("control ended the run before its time")?;
            if !report.problems.is_empty() {
                return Err(Refused::new(&self.file.name(), report.problems).into());
            }
            if report.done {
                break report;
            }
            if live {
                redraw(&text(&report, SHOWN))?;
            }
        };
        if live {
            redraw("")?;
        }
        context
            .output
            .answer(|| report_json(&last), || text(&last, usize::MAX))?;
        Ok(Exit::Done)
    }
}

/// In place of what was there.
fn redraw(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    write!(out, "\x1b[H\x1b[2J{text}")?;
    out.flush()?;
    Ok(())
}

fn text(report: &PolicyShadow, most: usize) -> String {
    let mut table = Table::new(&[
        "USER", "WOULD", "", "REMOTE", "PORT", "REASON", "RULE", "COUNT",
    ]);
    for row in report.rows.iter().take(most) {
        table.row([
            outcome::or_dash(&row.user),
            if row.passes_now { "DROP" } else { "pass" }.to_owned(),
            outcome::direction(row.to_peer).to_owned(),
            row.remote.clone(),
            port(row),
            row.reason.clone(),
            outcome::or_dash(&row.rule),
            row.count.to_string(),
        ]);
    }
    let hidden = report.rows.len().saturating_sub(most);
    let more = match hidden {
        0 => String::new(),
        hidden => format!("and {hidden} more rows\n"),
    };
    let beyond = match report.unlisted {
        0 => String::new(),
        unlisted => format!("{unlisted} further differences did not fit into the table.\n"),
    };
    format!(
        "{} flows opened or refused in {}; {} events lost.\n{beyond}\n{}{more}",
        report.observed,
        time::duration_text(report.elapsed_ms.div_ceil(1000) * 1000),
        report.lost,
        table.render("No difference to the live policy was seen.")
    )
}

fn port(row: &PolicyShadowRow) -> String {
    let protocol = match row.protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmp6".to_owned(),
        number => number.to_string(),
    };
    match row.port {
        0 => protocol,
        port => format!("{protocol}/{port}"),
    }
}

fn report_json(report: &PolicyShadow) -> Value {
    let row = |row: &PolicyShadowRow| {
        json!({
            "user": (!row.user.is_empty()).then_some(&row.user),
            "direction": outcome::direction(row.to_peer),
            "remote": row.remote,
            "protocol": row.protocol,
            "port": row.port,
            "would": if row.passes_now { "drop" } else { "pass" },
            "reason": row.reason,
            "rule": (!row.rule.is_empty()).then_some(&row.rule),
            "count": row.count,
        })
    };
    let dropped = report.rows.iter().filter(|row| row.passes_now);
    json!({
        "elapsed_ms": report.elapsed_ms,
        "observed": report.observed,
        "lost": report.lost,
        "unlisted": report.unlisted,
        "would_drop": dropped.fold(0, |all: u64, row| all.saturating_add(row.count)),
        "rows": report.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_to_the_greatest_number_at_most() {
        let row = PolicyShadowRow {
            passes_now: true,
            count: u64::MAX,
            ..PolicyShadowRow::default()
        };
        let report = PolicyShadow {
            rows: vec![row.clone(), row],
            ..PolicyShadow::default()
        };
        assert_eq!(report_json(&report)["would_drop"], u64::MAX);
    }
}
