//! `portcullis status`.

use anyhow::Result;
use portcullis_proto::v1::StatusRequest;
use serde_json::json;

use super::{Context, certificate, gateway};
use crate::exit::Exit;
use crate::output::Fields;

pub(super) async fn run(context: Context) -> Result<Exit> {
    let status = context
        .admin()
        .await?
        .status(StatusRequest {})
        .await?
        .into_inner();
    context.output.answer(
        || {
            json!({
                "version": status.version,
                "store": status.store,
                "revision": status.revision,
                "users": status.users,
                "devices": status.devices,
                "live_sessions": status.live_sessions,
                "gateways": status.gateways.iter().map(gateway::json_of).collect::<Vec<_>>(),
                "ca_fingerprint": status.ca_fingerprint,
                "portal_certificate": status.portal_certificate.as_ref().map(certificate::json_of),
            })
        },
        || {
            let mut fields = Fields::default()
                .field("Version", &status.version)
                .field("Store", &status.store)
                .field("Revision", status.revision)
                .field("Users", status.users)
                .field("Devices", status.devices)
                .field("Live sessions", status.live_sessions)
                .field("CA fingerprint", &status.ca_fingerprint);
            if let Some(found) = &status.portal_certificate {
                fields = fields.field("Portal certificate", certificate::text_of(found));
            }
            format!("{}\n{}", fields.render(), gateway::table(&status.gateways))
        },
    )?;
    Ok(Exit::Done)
}
