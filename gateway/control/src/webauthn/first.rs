//! The first passkey of who has just enrolled: from outside of the tunnel, without a device.

use std::net::IpAddr;

use portcullis_proto::v1::Level;
use sqlx::AnyConnection;
use uuid::Uuid;
use webauthn_rs::prelude::{
    CreationChallengeResponse, PasskeyRegistration, RegisterPublicKeyCredential,
};

use super::manage::{PasskeyView, view};
use super::{PasskeyError, Passkeys, named, note};
use crate::domain::Label;
use crate::secrets::{Field, TokenHash};
use crate::store::newcomers::{self, Newcomer};
use crate::store::{StoreError, factors, webauthn};

impl Passkeys {
    /// Whether the account may have its first passkey after a password and a code. One that has shown
    /// more, here or at a provider, adds others after a login with that.
    pub(crate) async fn may_be_first(
        &self,
        sql: &mut AnyConnection,
        user_id: &str,
    ) -> Result<bool, StoreError> {
        let links = factors::links(&mut *sql, user_id).await?;
        let vouched = links
            .iter()
            .any(|link| link.level == Level::PhishingResistant);
        Ok(!vouched && webauthn::of_user(sql, user_id).await?.is_empty())
    }

    /// Asks the browser. A newer challenge takes the place of the one before.
    pub(crate) async fn begin_first(
        &self,
        newcomer: &TokenHash,
    ) -> Result<CreationChallengeResponse, PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = self.newcomer(write.sql(), newcomer, now_ms).await?;
        let handle = Uuid::parse_str(&found.user_id).map_err(|_| StoreError::Value("user id"))?;
        let (options, state) = self
            .rp
            .webauthn
            .start_passkey_registration(handle, &found.user, &found.user, None)
            .map_err(PasskeyError::Begin)?;
        let sealed = self.seal_challenge(field(&found.id), now_ms, &state)?;
        newcomers::set_ceremony(write.sql(), &found.id, &sealed).await?;
        write.commit().await?;
        Ok(options)
    }

    /// Keeps the passkey, if the account still has none.
    pub(crate) async fn finish_first(
        &self,
        from: IpAddr,
        newcomer: &TokenHash,
        name: &str,
        credential: &RegisterPublicKeyCredential,
    ) -> Result<PasskeyView, PasskeyError> {
        let name = Label::parse("a passkey", name)?;
        let state = self.take_first(newcomer).await?;
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = self.newcomer(write.sql(), newcomer, now_ms).await?;
        let made = self.made(&found.user_id, credential, &state)?;
        let row = self.keep(&mut write, &found.user_id, &name, &made).await?;
        let mut detail = named(&row.id, name.as_str());
        detail["passkeys"] = 1.into();
        detail["from"] = from.to_canonical().to_string().into();
        note(&mut write, &found.user, "passkey.add", detail).await?;
        write.commit().await?;
        Ok(view(row))
    }

    /// Spends the challenge before anything about its answer is looked at.
    async fn take_first(&self, newcomer: &TokenHash) -> Result<PasskeyRegistration, PasskeyError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let found = self.newcomer(write.sql(), newcomer, now_ms).await?;
        newcomers::set_ceremony(write.sql(), &found.id, "").await?;
        write.commit().await?;
        if found.ceremony.is_empty() {
            return Err(PasskeyError::UnknownCeremony);
        }
        let (_, state) = self.open_challenge(field(&found.id), &found.ceremony, now_ms)?;
        Ok(state)
    }

    async fn newcomer(
        &self,
        sql: &mut AnyConnection,
        newcomer: &TokenHash,
        now_ms: i64,
    ) -> Result<Newcomer, PasskeyError> {
        let found = newcomers::find(&mut *sql, newcomer.as_str(), now_ms).await?;
        let found = found.ok_or(PasskeyError::UnknownCeremony)?;
        if !self.may_be_first(sql, &found.user_id).await? {
            return Err(PasskeyError::NotFirst);
        }
        Ok(found)
    }
}

fn field(newcomer: &str) -> Field<'_> {
    Field {
        table: "newcomers",
        column: "ceremony",
        row: newcomer,
    }
}
