//! `portcullis audit`.

use anyhow::Result;
use clap::Args;
use portcullis_proto::v1::{AuditRecord, ListAuditRequest};
use serde_json::{Value, json};

use super::Context;
use crate::exit::Exit;
use crate::output::Table;
use crate::time;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis audit --limit 20")]
pub(super) struct AuditArgs {
    /// How many records at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl AuditArgs {
    pub(super) async fn run(self, context: Context) -> Result<Exit> {
        let request = ListAuditRequest { limit: self.limit };
        let records = context
            .admin()
            .await?
            .list_audit(request)
            .await?
            .into_inner()
            .records;
        context.output.answer(
            || json!({ "records": records.iter().map(json_of).collect::<Vec<_>>() }),
            || {
                let mut table = Table::new(&["TIME", "ACTOR", "ACTION", "SUBJECT", "DETAIL"]);
                for record in &records {
                    table.row([
                        time::text(record.at_ms),
                        record.actor.clone(),
                        record.action.clone(),
                        record.subject.clone(),
                        record.detail.clone(),
                    ]);
                }
                table.render("No records.")
            },
        )?;
        Ok(Exit::Done)
    }
}

fn json_of(record: &AuditRecord) -> Value {
    // Stored as JSON; shown as text where it is not.
    let detail = match serde_json::from_str(&record.detail) {
        Ok(detail) => detail,
        Err(_) if record.detail.is_empty() => Value::Null,
        Err(_) => Value::from(record.detail.clone()),
    };
    json!({
        "at": time::json(record.at_ms),
        "actor": record.actor,
        "action": record.action,
        "subject": record.subject,
        "detail": detail,
    })
}
