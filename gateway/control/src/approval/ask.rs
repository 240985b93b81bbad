//! The computer's side: asking, and looking how it stands.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::{MOST_WAITING, PhonePrompt, PhoneState, Place, WITHIN_MS, action, written};
use crate::core::Core;
use crate::error::OperationError;
use crate::login::{LoginError, left};
use crate::secrets::{Secret, Token, TokenHash, random};
use crate::sso::Loopback;
use crate::store::approvals::{self, AskedRow, NewApproval};
use crate::store::outside_limits::{self, Share};
use crate::store::{Entry, StoreError, Write};

/// Whose phone is asked, by which login, and from where.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) attempt: &'a TokenHash,
    pub(crate) place: Place,
    pub(crate) user_id: &'a str,
    pub(crate) user: &'a str,
    /// Of the audit record.
    pub(crate) subject: &'a str,
    pub(crate) network: IpAddr,
    /// The login's own end.
    pub(crate) expires_ms: i64,
    /// Whose share it is of: the user's, or the device's where nothing but its key is proven.
    pub(crate) counted: &'a str,
    /// Where a program waits on the machine of the browser that is to approve, in place of a phone.
    pub(crate) back_to: Option<&'a Loopback>,
}

impl Core {
    /// Writes an approval down. The inner error is until when the account's phone is asked nothing more.
    pub(crate) async fn ask_phone(
        &self,
        write: &mut Write<'_>,
        asked: Asked<'_>,
    ) -> Result<Result<PhonePrompt, i64>, LoginError> {
        let now_ms = write.now_ms();
        let Asked {
            attempt,
            place,
            user_id,
            ..
        } = asked;
        // Nobody's phone is bothered by a browser that its user opens.
        if place != Place::Browser {
            let (waiting, first_ends_ms) =
                approvals::others_waiting(write.sql(), user_id, place.as_str(), attempt, now_ms)
                    .await?;
            if waiting >= MOST_WAITING {
                return Ok(Err(first_ends_ms.unwrap_or(now_ms)));
            }
        }
        let share = Share::approvals(asked.counted, place.as_str());
        if let Err(until_ms) = outside_limits::reserve(write.sql(), vec![share], now_ms).await? {
            return Ok(Err(until_ms));
        }
        let seed = random::<32>().map_err(OperationError::from)?;
        let seed = URL_SAFE_NO_PAD.encode(seed.as_slice());
        let token = self.approval_token(&seed)?;
        let number = number()?;
        let network = written(asked.network);
        let back_to = match asked.back_to {
            Some(back_to) => {
                serde_json::to_string(back_to).map_err(|_| StoreError::Value("loopback"))?
            }
            None => String::new(),
        };
        let approval = NewApproval {
            id: &token.hash(),
            attempt,
            place: place.as_str(),
            user_id,
            seed: &seed,
            number: number.into(),
            network: &network,
            back_to: &back_to,
            begun_ms: now_ms,
            expires_ms: asked.expires_ms.min(now_ms + WITHIN_MS),
        };
        approvals::insert(write.sql(), &approval).await?;
        write
            .audit(Entry {
                actor: &format!("user:{}", asked.user),
                action: action("begin", asked.back_to.is_some()),
                subject: asked.subject,
                detail: json!({ "from": network }),
            })
            .await?;
        Ok(Ok(PhonePrompt {
            url: self.approval_url(&token)?,
            number,
            expires_in: left(approval.expires_ms, now_ms),
        }))
    }

    /// How the approval of a login stands. It is over for who asks from another network.
    pub(crate) async fn phone_state(
        &self,
        sql: &mut sqlx::AnyConnection,
        attempt: &TokenHash,
        network: IpAddr,
    ) -> Result<PhoneState, LoginError> {
        let now_ms = self.now_ms();
        let row = approvals::of_attempt(sql, attempt, now_ms).await?;
        let Some(row) = row.filter(|row| row.network == written(network)) else {
            return Ok(PhoneState::Over);
        };
        let expires_in = left(row.expires_ms, now_ms);
        Ok(match row.state.as_str() {
            "waiting" => PhoneState::Waiting(self.prompt(&row, now_ms)?),
            "approved" => PhoneState::Approved { expires_in },
            _ => PhoneState::Denied,
        })
    }

    fn prompt(&self, row: &AskedRow, now_ms: i64) -> Result<PhonePrompt, LoginError> {
        let number = u8::try_from(row.number).map_err(|_| StoreError::Value("number"))?;
        Ok(PhonePrompt {
            url: self.approval_url(&self.approval_token(&row.seed)?)?,
            number,
            expires_in: left(row.expires_ms, now_ms),
        })
    }

    /// The token of a seed. The store has the seed and the token's hash: whoever has the store alone has no token.
    fn approval_token(&self, seed: &str) -> Result<Token, LoginError> {
        let parts: [&[u8]; 2] = [b"approval token", seed.as_bytes()];
        let bytes = self.vault.derive(&parts).map_err(OperationError::from)?;
        Ok(Token::of_bytes(&bytes))
    }

    /// The token stands behind the `#`: opening the address sends it to nobody, so it is in no log and no Referer.
    fn approval_url(&self, token: &Token) -> Result<Secret, LoginError> {
        let page = self.approval_page.get().ok_or(LoginError::Refused)?;
        Ok(Secret::from(format!("{page}#{}", token.expose())))
    }
}

/// From 10 to 99, each as likely as the others.
fn number() -> Result<u8, LoginError> {
    loop {
        let [byte] = *random::<1>().map_err(OperationError::from)?;
        if byte < 180 {
            return Ok(10 + byte % 90);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_two_digits() {
        let mut seen = [false; 100];
        for _ in 0..20_000 {
            seen[usize::from(number().unwrap())] = true;
        }
        assert!(seen[..10].iter().all(|seen| !seen));
        assert!(seen[10..].iter().all(|seen| *seen));
    }
}
