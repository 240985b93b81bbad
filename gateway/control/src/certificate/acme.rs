//! One certificate by ACME (RFC 8555), for all processes on this store.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use zeroize::Zeroizing;

use super::AcmeConfig;
use super::check::{CertificateError, Checked, check};
use crate::core::Core;
use crate::error::OperationError;
use crate::secrets::{Field, random};
use crate::store::acme::{self, Times, Whose};
use crate::store::{Entry, to_i64};
use crate::webauthn::PortalName;

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// An order has to be over before another process may begin one.
const ORDER_WITHIN: Duration = Duration::from_secs(8 * 60);
pub(super) const LEASE_MS: i64 = 10 * MINUTE_MS;
/// Let's Encrypt takes five failed validations of a name in an hour.
const AFTER_FAILURES_MS: [i64; 2] = [5 * MINUTE_MS, 15 * MINUTE_MS];
const LONGEST_PAUSE_MS: i64 = 6 * HOUR_MS;
/// Of what a CA or a command says.
const LONGEST_PROBLEM: usize = 400;
const LONGEST_TOKEN: usize = 128;
const FORGOTTEN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    #[error("{what}: {}", crate::sso::causes(.source))]
    Ca {
        what: &'static str,
        source: instant_acme::Error,
    },
    #[error("the CA refused the challenge: {0}")]
    Challenge(String),
    #[error("the CA does not offer the challenge {0}")]
    NotOffered(&'static str),
    #[error("dns_command failed to {verb} the record: {reason}")]
    Command { verb: &'static str, reason: String },
    #[error("the CA asks for proof of another name than the portal's")]
    NotOurs,
    #[error("the CA's answers are none that can be dealt with: the order broke down")]
    Broken,
    #[error("the order took longer than {} s", .0.as_secs())]
    Late(Duration),
    #[error("the CA's answer is not usable: {0}")]
    Certificate(#[from] CertificateError),
    #[error("cannot make a signing request: {0}")]
    Request(#[from] rcgen::Error),
    #[error(transparent)]
    Store(#[from] OperationError),
    #[error("the account's credentials in the store cannot be read: {0}")]
    Account(#[from] serde_json::Error),
}

pub(super) fn ca(what: &'static str) -> impl FnOnce(instant_acme::Error) -> AcmeError {
    move |source| AcmeError::Ca { what, source }
}

/// A chain in PEM, its key in DER, and both as they are used.
pub(super) struct Got {
    pub(super) chain: String,
    pub(super) key: Zeroizing<Vec<u8>>,
    pub(super) checked: Checked,
}

impl Core {
    /// Installs what is in the store and new, and orders where that is due.
    pub(super) async fn keep_certificate(&self, name: &PortalName, config: &AcmeConfig) {
        if let Err(error) = self.install_from_store(name, config).await {
            tracing::error!(%error, "the portal's certificate in the store cannot be used");
        }
        match self.order_where_due(name, config).await {
            Ok(()) => {}
            Err(error) => tracing::error!(%error, "cannot order the portal's certificate"),
        }
    }

    pub(super) async fn install_from_store(
        &self,
        name: &PortalName,
        config: &AcmeConfig,
    ) -> Result<(), AcmeError> {
        let whose = whose(name, config);
        let mut read = self.store.read().await.map_err(OperationError::from)?;
        let row = acme::find(read.sql(), whose)
            .await
            .map_err(OperationError::from)?;
        read.end().await.map_err(OperationError::from)?;
        let Some(row) = row.filter(|row| !row.chain.is_empty()) else {
            return Ok(());
        };
        let place = format!("{} {}", whose.name, whose.directory);
        let key = self
            .vault
            .unseal(private_key(&place), &row.private_key)
            .map_err(OperationError::from)?;
        match parse(&row.chain, &key, name, self.now_ms()) {
            Ok(found) => {
                self.certificate.install(found);
            }
            // Told by the own CA's certificate that is shown, and by the order that is due.
            Err(CertificateError::Expired(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn order_where_due(
        &self,
        name: &PortalName,
        config: &AcmeConfig,
    ) -> Result<(), OperationError> {
        let whose = whose(name, config);
        let now_ms = self.now_ms();
        let mut read = self.store.read().await?;
        let row = acme::find(read.sql(), whose).await?;
        read.end().await?;
        if row.is_some_and(|row| !times(now_ms).are_over(&row)) {
            return Ok(());
        }
        let holder = uuid::Uuid::new_v4().to_string();
        let mut write = self.store.record(now_ms).await?;
        let until_ms = now_ms + LEASE_MS;
        let leased = acme::lease(write.sql(), whose, &holder, times(now_ms), until_ms).await?;
        let Some(failures) = leased else {
            return Ok(()); // another process was faster; the write is rolled back
        };
        let next_ms = now_ms + jittered(pause_ms(failures))?;
        acme::put_off(write.sql(), whose, next_ms).await?;
        write.commit().await?;
        tracing::info!(%name, directory = config.directory, "ordering the portal's certificate");
        let ordering = tokio::time::timeout(ORDER_WITHIN, unbroken(self.order(name, config)));
        match ordering.await.unwrap_or(Err(AcmeError::Late(ORDER_WITHIN))) {
            Ok(got) => self.save(whose, &holder, got).await,
            Err(error) => self.note_failure(whose, &holder, &error, failures).await,
        }
    }

    async fn save(&self, whose: Whose<'_>, holder: &str, got: Got) -> Result<(), OperationError> {
        let place = format!("{} {}", whose.name, whose.directory);
        let sealed = self.vault.seal(private_key(&place), &got.key)?;
        let now_ms = self.now_ms();
        let not_after_ms = got.checked.not_after_ms;
        let life_ms = not_after_ms - got.checked.not_before_ms;
        let due_ms = got.checked.not_before_ms + life_ms / 3 * 2 + random_below(life_ms / 30)?;
        // A CA whose certificates are always due is asked no more often than this either.
        let next_ms = due_ms.max(now_ms + HOUR_MS);
        let mut write = self.store.record(now_ms).await?;
        let saved = (got.chain.as_str(), sealed.as_str());
        if !acme::succeed(write.sql(), whose, holder, saved, next_ms).await? {
            return Err(lost());
        }
        let entry = Entry {
            actor: "system",
            action: "certificate.renew",
            subject: whose.name,
            detail: json!({ "directory": whose.directory, "not_after_ms": not_after_ms }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        self.certificate.install(got.checked);
        tracing::info!(
            name = whose.name,
            not_after_ms,
            "the portal has a new certificate"
        );
        Ok(())
    }

    async fn note_failure(
        &self,
        whose: Whose<'_>,
        holder: &str,
        error: &AcmeError,
        failures: i64,
    ) -> Result<(), OperationError> {
        let mut problem = error.to_string();
        crate::text::tidy(&mut problem, LONGEST_PROBLEM);
        tracing::error!(problem, failures, "no certificate for the portal");
        let mut write = self.store.record(self.now_ms()).await?;
        if !acme::fail(write.sql(), whose, holder, &problem).await? {
            return Err(lost());
        }
        if is_forgotten(error) {
            acme::forget_account(write.sql(), whose.directory).await?;
        }
        let entry = Entry {
            actor: "system",
            action: "certificate.fail",
            subject: whose.name,
            detail: json!({
                "directory": whose.directory,
                "failures": failures,
                "problem": problem,
            }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }

    pub(super) async fn challenge_answer(&self, token: &str) -> Option<String> {
        // RFC 8555, 8.3: base64url.
        let is_token = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if token.is_empty() || token.len() > LONGEST_TOKEN || !token.chars().all(is_token) {
            return None;
        }
        let mut read = self.store.read().await.ok()?;
        let answer = acme::challenge(read.sql(), token, self.now_ms()).await;
        let _ = read.end().await;
        answer.ok().flatten()
    }
}

/// What came of the order is not this process's to write down any more.
fn lost() -> OperationError {
    OperationError::Precondition("the order took so long that another process began one".into())
}

/// Twice what is ever noted, for the clocks of other processes.
fn times(now_ms: i64) -> Times {
    Times {
        now_ms,
        latest_lease_ms: now_ms.saturating_add(2 * LEASE_MS),
        latest_retry_ms: now_ms.saturating_add(2 * LONGEST_PAUSE_MS),
    }
}

fn whose<'a>(name: &'a PortalName, config: &'a AcmeConfig) -> Whose<'a> {
    Whose {
        name: name.as_str(),
        directory: &config.directory,
    }
}

fn private_key(place: &str) -> Field<'_> {
    Field {
        table: "acme_certificates",
        column: "private_key",
        row: place,
    }
}

pub(super) fn credentials(directory: &str) -> Field<'_> {
    Field {
        table: "acme_accounts",
        column: "credentials",
        row: directory,
    }
}

pub(super) fn parse(
    chain: &str,
    key: &[u8],
    name: &PortalName,
    now_ms: i64,
) -> Result<Checked, CertificateError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Certificate(error.to_string()))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    check(chain, key, name, now_ms)
}

/// After so many failures on end, counting the one that is to come.
fn pause_ms(failures: i64) -> i64 {
    let index = usize::try_from(failures - 1).unwrap_or(0);
    if let Some(pause) = AFTER_FAILURES_MS.get(index) {
        return *pause;
    }
    let doublings = u32::try_from(index - AFTER_FAILURES_MS.len()).unwrap_or(u32::MAX);
    let pause = HOUR_MS.saturating_mul(2_i64.saturating_pow(doublings));
    pause.min(LONGEST_PAUSE_MS)
}

/// Up to a tenth more.
fn jittered(pause_ms: i64) -> Result<i64, OperationError> {
    Ok(pause_ms + random_below(pause_ms / 10)?)
}

fn random_below(limit: i64) -> Result<i64, OperationError> {
    let random = to_i64(u64::from_le_bytes(*random::<8>()?) >> 1);
    Ok(random % limit.max(1))
}

/// What a CA answers may make the client of the protocol panic (a `Retry-After` beyond all time does): that
/// must not take the gateway with it.
async fn unbroken<T>(ordering: impl Future<Output = Result<T, AcmeError>>) -> Result<T, AcmeError> {
    let mut ordering = pin!(ordering);
    poll_fn(|context| {
        // After a panic it is not polled again.
        catch_unwind(AssertUnwindSafe(|| ordering.as_mut().poll(context)))
            .unwrap_or(Poll::Ready(Err(AcmeError::Broken)))
    })
    .await
}

fn is_forgotten(error: &AcmeError) -> bool {
    match error {
        AcmeError::Ca {
            source: instant_acme::Error::Api(problem),
            ..
        } => problem.r#type.as_deref() == Some(FORGOTTEN),
        _ => false,
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod lease_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_that_panics_is_one_that_failed() {
        let panics = unbroken(async {
            tokio::task::yield_now().await;
            if true {
                panic!("as the clock does beyond its end");
            }
            Ok(())
        });
        assert!(matches!(panics.await, Err(AcmeError::Broken)));
        assert!(matches!(unbroken(async { Ok(7) }).await, Ok(7)));
    }

    #[test]
    fn after_three_failures_there_is_an_hour_between_attempts() {
        let minutes: Vec<i64> = (1..8).map(|n| pause_ms(n) / MINUTE_MS).collect();
        assert_eq!(minutes, [5, 15, 60, 120, 240, 360, 360]);
        assert_eq!(pause_ms(i64::MAX), LONGEST_PAUSE_MS);
        for _ in 0..100 {
            let pause = jittered(HOUR_MS).unwrap();
            assert!((HOUR_MS..HOUR_MS + HOUR_MS / 10).contains(&pause));
        }
    }
}
