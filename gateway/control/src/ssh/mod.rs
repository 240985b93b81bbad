//! Sessions that live as long as an SSH connection (the model of authpf(8)).
//!
//! sshd authenticates; its `ForceCommand` calls here and keeps the call open. Who calls is told by the socket.
//! The session ends with the call. A lease in the store, renewed while the call lasts, ends it also where this
//! process did not see the call end: after a crash the holder has the time of a lease to come back.

mod config;
mod hold;
mod service;

use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::v1;
use serde_json::json;
use tokio::sync::watch;

use crate::Control;
use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::ops::new_id;
use crate::ops::sessions::{Grant, grant, permitted, view};
use crate::shares::{Rate, Shares};
use crate::store::devices::DeviceRow;
use crate::store::sessions::SessionRow;
use crate::store::users::UserRow;
use crate::store::{Entry, Write, devices, locations, sessions, ssh, users};

pub use config::{SshConfig, SshLevel};
pub use hold::HeldStream;

pub(crate) use hold::{grace, lapse};
pub(crate) use service::serve;

/// A holder that is silent for so long has let go.
const LEASE_MS: i64 = 30 * 1000;
const RENEW_EVERY: Duration = Duration::from_secs(10);
/// New sessions of one user: each is a change that gateways have to acknowledge.
const OPENED: Rate = Rate {
    burst: 10,
    every: Duration::from_secs(10),
};

/// Opens and holds such sessions; cheap to clone.
#[derive(Clone, Debug)]
pub struct SshSessions {
    core: Arc<Core>,
    /// Whether this process is about to stop: sessions go on then, by their leases.
    stop: Arc<watch::Sender<bool>>,
    /// By account.
    opened: Arc<Shares<String>>,
}

impl Control {
    /// Sessions held by SSH connections.
    pub fn ssh(&self) -> SshSessions {
        SshSessions {
            core: self.0.clone(),
            stop: Arc::new(watch::Sender::new(false)),
            opened: Arc::new(Shares::new(OPENED)),
        }
    }
}

impl SshSessions {
    /// Opens a session of a user whom sshd has authenticated, or goes on with one that the user held a moment
    /// ago. It lives as long as the stream, and no longer than its deadline.
    pub async fn hold(
        &self,
        user: &str,
        request: &v1::HoldRequest,
    ) -> Result<HeldStream, OperationError> {
        let holder = new_id();
        let session = if request.session.is_empty() {
            self.open(user, request, &holder).await?
        } else {
            self.take_over(user, &request.session, &holder).await?
        };
        Ok(self.keep(session, holder))
    }

    /// Lets go of every session without ending it.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    async fn open(
        &self,
        user: &str,
        request: &v1::HoldRequest,
        holder: &str,
    ) -> Result<SessionRow, OperationError> {
        let core = &self.core;
        let config = core.config.ssh.as_ref();
        let config = config.ok_or_else(|| {
            OperationError::Precondition("there is no [control.ssh] in the configuration".into())
        })?;
        let mut write = core.store.change(core.now_ms()).await?;
        let user = account(&mut write, user).await?;
        self.opened.take(user.id.clone()).map_err(|left| {
            let seconds = left.as_secs() + 1;
            OperationError::Precondition(format!("too many sessions: try again in {seconds} s"))
        })?;
        let device = device(&mut write, &user, request, config).await?;
        let location = locations::find(write.sql(), &device.location_id).await?;
        let location = location.ok_or_else(|| OperationError::NotFound {
            what: "location",
            name: device.location.clone(),
        })?;
        let level = config.level.into();
        permitted(level, location.mfa.require, &location.name)?;
        let actor = format!("user:{}", user.name);
        let grant_of = Grant::of(&device, &location.mfa, level, &actor);
        let id = grant(&mut write, grant_of).await?;
        let now_ms = write.now_ms();
        ssh::insert(write.sql(), &id, holder, now_ms + LEASE_MS).await?;
        write
            .audit(Entry {
                actor: &actor,
                action: "ssh.grant",
                subject: &format!("device:{}", device.name),
                detail: json!({ "session": id, "from": request.address }),
            })
            .await?;
        let session = found(&mut write, &id).await?;
        let revision = write.commit().await?;
        let acknowledged = Control(core.clone()).logins();
        let acknowledged = acknowledged.until_acknowledged(&session, revision).await;
        acknowledged.map_err(|error| OperationError::Precondition(error.to_string()))?;
        Ok(session)
    }

    /// One that has ended in the meantime is answered as it is.
    async fn take_over(
        &self,
        user: &str,
        id: &str,
        holder: &str,
    ) -> Result<SessionRow, OperationError> {
        let core = &self.core;
        let mut write = core.store.record(core.now_ms()).await?;
        let user = account(&mut write, user).await?;
        let lease_ms = write.now_ms() + LEASE_MS;
        let taken = ssh::take_over(write.sql(), id, &user.id, holder, lease_ms).await?;
        let session = found(&mut write, id).await?;
        if session.user != user.name || !taken && is_live(&session) {
            return Err(unknown(id));
        }
        write.commit().await?;
        Ok(session)
    }
}

async fn account(write: &mut Write<'_>, name: &str) -> Result<UserRow, OperationError> {
    let user = users::find(write.sql(), name).await?;
    // A name, not an id.
    let user = user.filter(|user| user.name == name && !user.disabled);
    user.ok_or_else(|| {
        OperationError::Precondition(format!(
            "user {name:?} has no account at Portcullis, or it is disabled"
        ))
    })
}

async fn found(write: &mut Write<'_>, id: &str) -> Result<SessionRow, OperationError> {
    let session = sessions::find(write.sql(), id).await?;
    session.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> OperationError {
    OperationError::NotFound {
        what: "session",
        name: id.to_owned(),
    }
}

/// Past its deadline it is so until that is written down, which is soon.
fn is_live(session: &SessionRow) -> bool {
    session.state == SessionState::Live.as_str()
}

/// Which of the user's devices is meant: the one that is named, or else the one that the SSH connection comes
/// from, or else the only one.
async fn device(
    write: &mut Write<'_>,
    user: &UserRow,
    request: &v1::HoldRequest,
    config: &SshConfig,
) -> Result<DeviceRow, OperationError> {
    let mut mine = devices::list(write.sql(), &user.id, "").await?;
    mine.retain(|device| config.locations.contains(&device.location));
    let names: Vec<&str> = mine.iter().map(|device| device.name.as_str()).collect();
    let names = names.join(", ");
    if !request.device.is_empty() {
        let wanted = &request.device;
        let is_wanted = |device: &DeviceRow| device.name == *wanted || device.called() == wanted;
        return mine.into_iter().find(is_wanted).ok_or_else(|| {
            OperationError::invalid(format!(
                "none of your devices here is called {wanted:?}; there are: {names}"
            ))
        });
    }
    if let Ok(address) = request.address.parse() {
        let address = crate::login::canonical(address);
        if let Some(device) = devices::find_by_address(write.sql(), &address).await?
            && mine.iter().any(|mine| mine.id == device.id)
        {
            return Ok(device);
        }
    }
    match mine.pop() {
        None => Err(OperationError::Precondition(
            "you have no device at a location whose sessions SSH may open".into(),
        )),
        Some(only) if mine.is_empty() => Ok(only),
        Some(_) => Err(OperationError::invalid(format!(
            "which device? Name one of: {names}"
        ))),
    }
}
