//! Locations.

mod set;

use std::net::IpAddr;

use portcullis_proto::v1;
use serde_json::json;

use super::{Result, by_admin, found, new_id};
use crate::core::Core;
use crate::domain::{
    FactorSet, MfaChange, MfaPolicy, Mode, Name, Pool, Preset, endpoint, level_name, route,
};
use crate::error::OperationError;
use crate::store::locations::{self, LocationRow};
use crate::store::{to_i64, to_u64};

const DEFAULT_MTU: u32 = 1420;
const SMALLEST_MTU: u32 = 1280;
const DEFAULT_PORTAL_PORT: u32 = 443;
/// What a location demands of logins unless told otherwise.
const DEFAULT_MFA: MfaPolicy = MfaPolicy {
    factors: FactorSet::ALL,
    require: v1::Level::Mfa,
    session_lifetime_ms: 12 * 60 * 60 * 1000,
    idle_timeout_ms: 0,
};

impl Core {
    pub(crate) async fn add_location(
        &self,
        request: v1::AddLocationRequest,
    ) -> Result<v1::Location> {
        let preset = request.preset;
        let request = request
            .location
            .ok_or_else(|| OperationError::invalid("no location was given"))?;
        let mfa = mfa(&request, &preset)?;
        let (location, pools) = check(request, mfa, self.now_ms())?;
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
        let detail = json!({
            "pools": location.pools,
            "mode": location.mode.as_str(),
            "roaming": location.roaming != 0,
            "require": level_name(location.mfa.require),
            "factors": location.mfa.factors.names(),
            "session_lifetime_ms": location.mfa.session_lifetime_ms,
            "idle_timeout_ms": location.mfa.idle_timeout_ms,
        });
        write
            .audit(by_admin("location.add", &location.name, detail))
            .await?;
        write.commit().await?;
        Ok(view(&location))
    }

    pub(crate) async fn list_locations(&self) -> Result<v1::Locations> {
        let mut read = self.store.read().await?;
        let locations = locations::list(read.sql()).await?;
        read.end().await?;
        Ok(v1::Locations {
            locations: locations.iter().map(view).collect(),
        })
    }

    pub(crate) async fn get_location(&self, name: &str) -> Result<v1::Location> {
        let mut read = self.store.read().await?;
        let location = found("location", name, locations::find(read.sql(), name)).await?;
        read.end().await?;
        Ok(view(&location))
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

/// What a new location demands of logins.
fn mfa(request: &v1::Location, preset: &str) -> Result<MfaPolicy> {
    let require = match request.require {
        0 => None,
        require => Some(require),
    };
    let (require, preset) = terms_given(require, preset)?;
    let factors = match request.factors.as_slice() {
        [] => None,
        names => Some(FactorSet::parse(names)?),
    };
    let unless_zero = |ms: u64| (ms != 0).then(|| to_i64(ms));
    let change = MfaChange {
        factors,
        require,
        session_lifetime_ms: unless_zero(request.session_lifetime_ms),
        idle_timeout_ms: unless_zero(request.idle_timeout_ms),
        preset,
    };
    Ok(change.apply(DEFAULT_MFA)?)
}

/// A level and a preset as a request names them.
fn terms_given(require: Option<i32>, preset: &str) -> Result<(Option<v1::Level>, Option<Preset>)> {
    let require = match require {
        None => None,
        Some(number) => Some(
            v1::Level::try_from(number)
                .map_err(|_| OperationError::invalid(format!("there is no level {number}")))?,
        ),
    };
    let preset = match preset {
        "" => None,
        preset => Some(Preset::parse(preset)?),
    };
    Ok((require, preset))
}

fn check(request: v1::Location, mfa: MfaPolicy, now_ms: i64) -> Result<(LocationRow, Vec<Pool>)> {
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
    let location = LocationRow {
        id: new_id(),
        name: name.as_str().into(),
        mode: Mode::parse_or_default(&request.mode)?,
        pools: pools.iter().map(|pool| pool.net().to_string()).collect(),
        endpoint: request.endpoint,
        listen_port: port("listen port", request.listen_port, u32::from(endpoint_port))?,
        mtu: mtu.into(),
        routes,
        dns,
        portal_port: port("portal port", request.portal_port, DEFAULT_PORTAL_PORT)?,
        portals,
        mfa,
        persistent_keepalive_s: match request.persistent_keepalive_s {
            seconds @ 0..=65_535 => seconds.into(),
            _ => return Err(OperationError::invalid("a keepalive is 65535 s at most")),
        },
        answer_drops: request.answer_drops.unwrap_or(true).into(),
        captive: request.captive.unwrap_or(true).into(),
        roaming: request.roaming.unwrap_or(true).into(),
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

pub(super) fn view(location: &LocationRow) -> v1::Location {
    let small = |value: i64| u32::try_from(value).unwrap_or(0);
    v1::Location {
        id: location.id.clone(),
        name: location.name.clone(),
        mode: location.mode.as_str().into(),
        pools: location.pools.clone(),
        endpoint: location.endpoint.clone(),
        listen_port: small(location.listen_port),
        mtu: small(location.mtu),
        routes: location.routes.clone(),
        dns: location.dns.clone(),
        portal_port: small(location.portal_port),
        portals: location.portals.clone(),
        session_lifetime_ms: to_u64(location.mfa.session_lifetime_ms),
        idle_timeout_ms: to_u64(location.mfa.idle_timeout_ms),
        persistent_keepalive_s: small(location.persistent_keepalive_s),
        created_ms: location.created_ms,
        answer_drops: Some(location.answer_drops != 0),
        captive: Some(location.captive != 0),
        roaming: Some(location.roaming != 0),
        require: location.mfa.require.into(),
        factors: location.mfa.factors.names(),
        revocation: None,
    }
}
