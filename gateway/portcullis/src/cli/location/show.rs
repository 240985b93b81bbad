//! Locations, as they are shown.

use anyhow::Result;
use portcullis_proto::v1::{ListRequest, Location};
use serde_json::{Value, json};

use crate::cli::{Context, level_name};
use crate::exit::Exit;
use crate::output::{Fields, Table};
use crate::time;

pub(super) async fn list(context: Context) -> Result<Exit> {
    let locations = context
        .admin()
        .await?
        .list_locations(ListRequest {})
        .await?
        .into_inner()
        .locations;
    context.output.answer(
        || json!({ "locations": locations.iter().map(json_of).collect::<Vec<_>>() }),
        || {
            let mut table = Table::new(&[
                "NAME", "MODE", "POOLS", "ENDPOINT", "ROUTES", "REQUIRES", "LIFETIME", "IDLE",
            ]);
            for location in &locations {
                table.row([
                    location.name.clone(),
                    location.mode.clone(),
                    location.pools.join(","),
                    location.endpoint.clone(),
                    location.routes.join(","),
                    level_name(location.require()).to_owned(),
                    time::duration_text(location.session_lifetime_ms),
                    time::duration_text(location.idle_timeout_ms),
                ]);
            }
            table.render(
                "No locations yet: portcullis location add NAME --pool CIDR --endpoint HOST:PORT",
            )
        },
    )?;
    Ok(Exit::Done)
}

pub(super) fn json_of(location: &Location) -> Value {
    json!({
        "id": location.id,
        "name": location.name,
        "mode": location.mode,
        "pools": location.pools,
        "endpoint": location.endpoint,
        "listen_port": location.listen_port,
        "mtu": location.mtu,
        "routes": location.routes,
        "dns": location.dns,
        "portal_port": location.portal_port,
        "portals": location.portals,
        "require": level_name(location.require()),
        "factors": location.factors,
        "session_lifetime_ms": location.session_lifetime_ms,
        "idle_timeout_ms": location.idle_timeout_ms,
        "persistent_keepalive_s": location.persistent_keepalive_s,
        "answer_drops": location.answer_drops(),
        "captive": location.captive(),
        "roaming": location.roaming.unwrap_or(true),
        "created": time::json(location.created_ms),
    })
}

pub(super) fn text_of(location: &Location) -> String {
    Fields::default()
        .field("Name", &location.name)
        .field("Id", &location.id)
        .field("Mode", &location.mode)
        .field("Pools", location.pools.join(", "))
        .field("Endpoint", &location.endpoint)
        .field("Listen port", location.listen_port)
        .field("MTU", location.mtu)
        .field("Routes", location.routes.join(", "))
        .field("DNS", location.dns.join(", "))
        .field("Portal port", location.portal_port)
        .field("Portals", location.portals.join(", "))
        .field("Requires", level_name(location.require()))
        .field("Factors", location.factors.join(", "))
        .field(
            "Session lifetime",
            time::duration_text(location.session_lifetime_ms),
        )
        .field(
            "Idle timeout",
            time::duration_text(location.idle_timeout_ms),
        )
        .field(
            "Keepalive",
            time::duration_text(u64::from(location.persistent_keepalive_s) * 1000),
        )
        .field(
            "Answers drops",
            if location.answer_drops() { "yes" } else { "no" },
        )
        .field(
            "Leads plain HTTP to the portal",
            if location.captive() { "yes" } else { "no" },
        )
        .field(
            "Sessions roam",
            if location.roaming.unwrap_or(true) {
                "yes"
            } else {
                "no"
            },
        )
        .field("Created", time::text(location.created_ms))
        .render()
}
