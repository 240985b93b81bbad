//! Locations.

use std::net::IpAddr;

use portcullis_proto::v1;
use serde_json::json;

use super::{Result, by_admin, found, new_id};
use crate::core::Core;
use crate::domain::{Name, Pool, endpoint, route};
use crate::error::OperationError;
use crate::store::locations::{self, LocationRow};
use crate::store::{to_i64, to_u64};

const DEFAULT_MTU: u32 = 1420;
const SMALLEST_MTU: u32 = 1280;
const DEFAULT_PORTAL_PORT: u32 = 443;
const DEFAULT_LIFETIME_MS: u64 = 12 * 60 * 60 * 1000;
const LONGEST_MS: u64 = 366 * 24 * 60 * 60 * 1000;

impl Core {
    pub(crate) async fn add_location(
        &self,
        request: v1::AddLocationRequest,
    ) -> Result<v1::Location> {
        let request = request
            .location
            .ok_or_else(|| OperationError::invalid("no location was given"))?;
        let (location, pools) = check(request, self.now_ms())?;
        let mut write = self.store.change(location.created_ms).await?;
        for other in locations::list(write.sql()).await? {
            for theirs in other.pools()? {
                if let Some(ours) = pools.iter().find(|ours| ours.overlaps(theirs)) {
                    return Err(OperationError::Precondition(format!(
                        "pool {} overlaps {} of location {:?}",
                        ours.net(),
                        theirs.net(),
                        other.name
                    )));
                }
            }
        }
        let location = LocationRow {
            revision: write.revision(),
            ..location
        };
        locations::insert(write.sql(), &location)
            .await
            .map_err(OperationError::taken("location", &location.name))?;
        let detail = json!({ "pools": location.pools });
        write
            .audit(by_admin("location.add", &location.name, detail))
            .await?;
        write.commit().await?;
        Ok(view(location))
    }

    pub(crate) async fn list_locations(&self) -> Result<v1::Locations> {
        let mut read = self.store.read().await?;
        let locations = locations::list(read.sql()).await?;
        read.end().await?;
        Ok(v1::Locations {
            locations: locations.into_iter().map(view).collect(),
        })
    }

    pub(crate) async fn get_location(&self, name: &str) -> Result<v1::Location> {
        let mut read = self.store.read().await?;
        let location = found("location", name, locations::find(read.sql(), name)).await?;
        read.end().await?;
        Ok(view(location))
    }

    /// Changes what may change while devices and gateways use the location.
    pub(crate) async fn set_location(
        &self,
        request: v1::SetLocationRequest,
    ) -> Result<v1::Location> {
        let Some(answer_drops) = request.answer_drops else {
            return Err(OperationError::invalid("nothing to change was given"));
        };
        let mut write = self.store.change(self.now_ms()).await?;
        let name = &request.name;
        let location = found("location", name, locations::find(write.sql(), name)).await?;
        let revision = write.revision();
        locations::set_answer_drops(write.sql(), &location.id, answer_drops, revision).await?;
        let detail = json!({ "answer_drops": answer_drops });
        write
            .audit(by_admin("location.set", &location.name, detail))
            .await?;
        write.commit().await?;
        Ok(view(LocationRow {
            answer_drops: answer_drops.into(),
            ..location
        }))
    }

    /// Only an empty one: its devices and gateways are removed first, by name.
    pub(crate) async fn remove_location(&self, name: &str) -> Result<()> {
        let mut write = self.store.change(self.now_ms()).await?;
        let location = found("location", name, locations::find(write.sql(), name)).await?;
        let (devices, gateways) = locations::uses(write.sql(), &location.id).await?;
        if devices + gateways > 0 {
            return Err(OperationError::Precondition(format!(
                "location {:?} still has {devices} devices and {gateways} gateways: remove them first",
                location.name
            )));
        }
        locations::delete(write.sql(), &location.id).await?;
        write
            .audit(by_admin("location.remove", &location.name, json!({})))
            .await?;
        write.commit().await?;
        Ok(())
    }
}

fn check(request: v1::Location, now_ms: i64) -> Result<(LocationRow, Vec<Pool>)> {
    let name = Name::parse("location", &request.name)?;
    let endpoint_port = endpoint(&request.endpoint)?;
    let pools = request.pools.iter().map(|pool| Pool::parse(pool));
    let pools = pools.collect::<std::result::Result<Vec<_>, _>>()?;
    if pools.is_empty() {
        return Err(OperationError::invalid(
            "a location needs at least one pool",
        ));
    }
    for (index, pool) in pools.iter().enumerate() {
        if let Some(other) = pools[..index].iter().find(|other| other.overlaps(*pool)) {
            return Err(OperationError::invalid(format!(
                "pools {} and {} overlap",
                other.net(),
                pool.net()
            )));
        }
    }
    let routes = request
        .routes
        .iter()
        .map(|text| route(text).map(|net| net.to_string()));
    let routes = routes.collect::<std::result::Result<Vec<_>, _>>()?;
    let dns = addresses("resolver", &request.dns)?;
    let portals = addresses("portal", &request.portals)?;
    let mtu = if request.mtu == 0 {
        DEFAULT_MTU
    } else {
        request.mtu
    };
    // RFC 8200, 5. Gateways ask the same of every location, with IPv6 pools or without.
    if !(SMALLEST_MTU..=65_535).contains(&mtu) {
        return Err(OperationError::invalid(format!(
            "an MTU of {mtu} is not within {SMALLEST_MTU}, the least that IPv6 needs, and 65535"
        )));
    }
    let lifetime_ms = match request.session_lifetime_ms {
        0 => DEFAULT_LIFETIME_MS,
        lifetime => lifetime,
    };
    for (what, ms) in [
        ("session lifetime", lifetime_ms),
        ("idle timeout", request.idle_timeout_ms),
    ] {
        if ms > LONGEST_MS || (1..1000).contains(&ms) {
            return Err(OperationError::invalid(format!(
                "a {what} is between a second and 366 days"
            )));
        }
    }
    let location = LocationRow {
        id: new_id(),
        name: name.as_str().into(),
        pools: pools.iter().map(|pool| pool.net().to_string()).collect(),
        endpoint: request.endpoint,
        listen_port: port("listen port", request.listen_port, u32::from(endpoint_port))?,
        mtu: mtu.into(),
        routes,
        dns,
        portal_port: port("portal port", request.portal_port, DEFAULT_PORTAL_PORT)?,
        portals,
        session_lifetime_ms: to_i64(lifetime_ms),
        idle_timeout_ms: to_i64(request.idle_timeout_ms),
        persistent_keepalive_s: match request.persistent_keepalive_s {
            seconds @ 0..=65_535 => seconds.into(),
            _ => return Err(OperationError::invalid("a keepalive is 65535 s at most")),
        },
        answer_drops: request.answer_drops.unwrap_or(true).into(),
        created_ms: now_ms,
        revision: 0,
    };
    Ok((location, pools))
}

fn port(what: &str, port: u32, default: u32) -> Result<i64> {
    match if port == 0 { default } else { port } {
        port @ 1..=65_535 => Ok(port.into()),
        _ => Err(OperationError::invalid(format!(
            "{what} {port} is not a port"
        ))),
    }
}

fn addresses(what: &str, texts: &[String]) -> Result<Vec<String>> {
    let parse = |text: &String| match text.parse::<IpAddr>() {
        Ok(address) => Ok(address.to_string()),
        Err(_) => Err(OperationError::invalid(format!(
            "{what} {text:?} is not an IP address"
        ))),
    };
    texts.iter().map(parse).collect()
}

pub(super) fn view(location: LocationRow) -> v1::Location {
    let small = |value: i64| u32::try_from(value).unwrap_or(0);
    v1::Location {
        id: location.id,
        name: location.name,
        pools: location.pools,
        endpoint: location.endpoint,
        listen_port: small(location.listen_port),
        mtu: small(location.mtu),
        routes: location.routes,
        dns: location.dns,
        portal_port: small(location.portal_port),
        portals: location.portals,
        session_lifetime_ms: to_u64(location.session_lifetime_ms),
        idle_timeout_ms: to_u64(location.idle_timeout_ms),
        persistent_keepalive_s: small(location.persistent_keepalive_s),
        created_ms: location.created_ms,
        answer_drops: Some(location.answer_drops != 0),
    }
}
