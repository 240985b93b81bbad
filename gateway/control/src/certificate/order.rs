//! One order at a CA: account, proof, certificate.

use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationHandle, AuthorizationStatus, ChallengeType,
    Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use zeroize::Zeroizing;

use super::acme::{AcmeError, Got, LEASE_MS, ca, credentials, parse};
use super::{AcmeConfig, dns};
use crate::core::Core;
use crate::error::OperationError;
use crate::store::{Entry, acme};
use crate::webauthn::PortalName;

/// For the CA to look at the challenge, and again to sign.
const CA_WITHIN: Duration = Duration::from_secs(120);

/// What was shown to the CA.
enum Undo {
    Record(String, String),
    Token(String),
}

impl Core {
    pub(super) async fn order(
        &self,
        name: &PortalName,
        config: &AcmeConfig,
    ) -> Result<Got, AcmeError> {
        let account = self.account(config).await?;
        let names = [Identifier::Dns(name.to_string())];
        let mut order = account
            .new_order(&NewOrder::new(&names))
            .await
            .map_err(ca("the CA takes no order"))?;
        let proven = self.prove(&mut order, name, config).await?;
        let ended = order
            .poll_ready(&RetryPolicy::default().timeout(CA_WITHIN))
            .await;
        // Whatever came of it, what was shown to the CA goes.
        for undo in &proven {
            self.undo(undo, config).await;
        }
        if ended.map_err(ca("the order failed"))? != OrderStatus::Ready {
            return Err(AcmeError::Challenge(reason(&mut order).await));
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(vec![name.to_string()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params.serialize_request(&key)?;
        order
            .finalize_csr(request.der())
            .await
            .map_err(ca("the CA refused the signing request"))?;
        let chain = order
            .poll_certificate(&RetryPolicy::default().timeout(CA_WITHIN))
            .await
            .map_err(ca("the CA gave no certificate"))?;
        let key = Zeroizing::new(key.serialize_der());
        let checked = parse(&chain, &key, name, self.now_ms())?;
        Ok(Got {
            chain,
            key,
            checked,
        })
    }

    /// The account in the store, or a new one.
    async fn account(&self, config: &AcmeConfig) -> Result<Account, AcmeError> {
        let builder = match &config.ca_file {
            Some(path) => Account::builder_with_root(path),
            None => Account::builder(),
        };
        let builder = builder.map_err(ca("cannot read ca_file"))?;
        let directory = config.directory.as_str();
        let mut read = self.store.read().await.map_err(OperationError::from)?;
        let found = acme::account(read.sql(), directory).await;
        read.end().await.map_err(OperationError::from)?;
        if let Some(sealed) = found.map_err(OperationError::from)? {
            let text = self.vault.unseal(credentials(directory), &sealed);
            let text = text.map_err(OperationError::from)?;
            let found: AccountCredentials = serde_json::from_slice(&text)?;
            return builder
                .from_credentials(found)
                .await
                .map_err(ca("the CA cannot be reached"));
        }
        let contact: Vec<&str> = config.contact.as_deref().into_iter().collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: config.accept_terms,
            only_return_existing: false,
        };
        let (account, made) = builder
            .create(&wanted, directory.to_owned(), None)
            .await
            .map_err(ca("the CA gave no account"))?;
        let text = Zeroizing::new(serde_json::to_vec(&made)?);
        self.keep_account(directory, &text).await?;
        Ok(account)
    }

    async fn keep_account(&self, directory: &str, text: &[u8]) -> Result<(), OperationError> {
        let sealed = self.vault.seal(credentials(directory), text)?;
        let mut write = self.store.record(self.now_ms()).await?;
        let now_ms = write.now_ms();
        acme::add_account(write.sql(), directory, &sealed, now_ms).await?;
        let entry = Entry {
            actor: "system",
            action: "certificate.account",
            subject: directory,
            detail: json!({}),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }

    /// Shows the CA what it asks for. Answers what is to be undone.
    async fn prove(
        &self,
        order: &mut Order,
        name: &PortalName,
        config: &AcmeConfig,
    ) -> Result<Vec<Undo>, AcmeError> {
        let mut shown = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(next) = authorizations.next().await {
            let one = next.map_err(ca("the CA gave no challenge"));
            let failed = match one {
                Ok(one) if one.status == AuthorizationStatus::Valid => continue,
                Ok(one) => self.prove_one(one, name, config, &mut shown).await,
                Err(error) => Err(error),
            };
            if let Err(error) = failed {
                for undo in &shown {
                    self.undo(undo, config).await;
                }
                return Err(error);
            }
        }
        Ok(shown)
    }

    async fn prove_one(
        &self,
        mut one: AuthorizationHandle<'_>,
        name: &PortalName,
        config: &AcmeConfig,
        shown: &mut Vec<Undo>,
    ) -> Result<(), AcmeError> {
        let by_dns = config.listen.is_empty();
        let (kind, word) = if by_dns {
            (ChallengeType::Dns01, "dns-01")
        } else {
            (ChallengeType::Http01, "http-01")
        };
        let mut challenge = one.challenge(kind).ok_or(AcmeError::NotOffered(word))?;
        let asked = challenge.identifier();
        if asked.wildcard || !is_for(asked.identifier, name) {
            return Err(AcmeError::NotOurs);
        }
        let answer = challenge.key_authorization();
        if by_dns {
            let record = format!("_acme-challenge.{name}");
            let value = answer.dns_value();
            // Also where setting it failed half-way.
            shown.push(Undo::Record(record.clone(), value.clone()));
            dns::run(&config.dns_command, "set", &record, &value).await?;
        } else {
            let token = challenge.token.clone();
            let mut write = self
                .store
                .record(self.now_ms())
                .await
                .map_err(OperationError::from)?;
            let now_ms = write.now_ms();
            let until = (now_ms, now_ms + LEASE_MS);
            acme::add_challenge(write.sql(), &token, answer.as_str(), until)
                .await
                .map_err(OperationError::from)?;
            write.commit().await.map_err(OperationError::from)?;
            shown.push(Undo::Token(token));
        }
        challenge
            .set_ready()
            .await
            .map_err(ca("the CA refused the challenge"))
    }

    async fn undo(&self, undo: &Undo, config: &AcmeConfig) {
        let undone = match undo {
            Undo::Record(record, value) => {
                dns::run(&config.dns_command, "clear", record, value).await
            }
            Undo::Token(token) => self.forget_challenge(token).await.map_err(AcmeError::from),
        };
        if let Err(error) = undone {
            tracing::warn!(%error, "what a challenge needed is still there");
        }
    }

    async fn forget_challenge(&self, token: &str) -> Result<(), OperationError> {
        let mut write = self.store.record(self.now_ms()).await?;
        acme::remove_challenge(write.sql(), token).await?;
        write.commit().await?;
        Ok(())
    }
}

/// What the CA says of the challenge that failed.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut one)) = authorizations.next().await {
        let Ok(state) = one.refresh().await else {
            continue;
        };
        let mut errors = state.challenges.iter().filter_map(|c| c.error.as_ref());
        if let Some(problem) = errors.next() {
            return problem.to_string();
        }
    }
    "it does not say why".to_owned()
}

/// Whether this is the name that was ordered: what the CA answers becomes an argument of a command.
fn is_for(asked: &Identifier, name: &PortalName) -> bool {
    matches!(asked, Identifier::Dns(dns) if dns == name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_proven_but_the_name_that_was_ordered() {
        let name = PortalName::parse("login.example.com").unwrap();
        for (dns, ours) in [
            ("login.example.com", true),
            ("other.example.com", false),
            ("login.example.com\nsend", false),
        ] {
            assert_eq!(is_for(&Identifier::Dns(dns.into()), &name), ours, "{dns:?}");
        }
    }
}
