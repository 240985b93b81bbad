//! `portcullis status`.

use anyhow::Result;
use portcullis_proto::v1::StatusRequest;
use serde_json::json;

use super::{Context, gateway};
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
            })
        },
        || {
            let fields = Fields::default()
                .field("Version", &status.version)
                .field("Store", &status.store)
                .field("Revision", status.revision)
                .field("Users", status.users)
                .field("Devices", status.devices)
                .field("Live sessions", status.live_sessions)
                .field("CA fingerprint", &status.ca_fingerprint);
            format!("{}\n{}", fields.render(), gateway::table(&status.gateways))
        },
    )?;
    Ok(Exit::Done)
}
