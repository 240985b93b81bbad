//! The computer's last step: taking what the phone has approved.

use std::net::IpAddr;
use std::time::Duration;

use super::written;
use crate::core::Core;
use crate::login::{LoginError, left};
use crate::secrets::TokenHash;
use crate::store::approvals;
use crate::store::outside_limits::{self, Share};

/// What the phone has answered, as far as can be told without spending it.
pub(crate) enum Answer {
    Waiting {
        expires_in: Duration,
    },
    Approved,
    /// Asked for from another network than this one.
    Elsewhere,
}

impl Core {
    /// Looks at the phone's answer. What is denied or over is an error, and so is one that was never asked for.
    pub(crate) async fn phone_answer(
        &self,
        sql: &mut sqlx::AnyConnection,
        attempt: &TokenHash,
        network: IpAddr,
    ) -> Result<Answer, LoginError> {
        let now_ms = self.now_ms();
        let row = approvals::of_attempt(sql, attempt, now_ms).await?;
        let row = row.ok_or(LoginError::ApprovalOver)?;
        if row.network != written(network) {
            return Ok(Answer::Elsewhere);
        }
        match row.state.as_str() {
            "waiting" => Ok(Answer::Waiting {
                expires_in: left(row.expires_ms, now_ms),
            }),
            "approved" => Ok(Answer::Approved),
            _ => Err(LoginError::NotApproved),
        }
    }

    /// Spends what was approved, and forgets how often the phone was asked. False when there is nothing to spend.
    pub(crate) async fn spend_approval(
        &self,
        write: &mut crate::store::Write<'_>,
        attempt: &TokenHash,
        network: IpAddr,
        code: Option<&TokenHash>,
        share: &Share,
    ) -> Result<bool, LoginError> {
        let now_ms = write.now_ms();
        if !approvals::take(write.sql(), attempt, &written(network), code, now_ms).await? {
            return Ok(false);
        }
        outside_limits::forgive(write.sql(), share).await?;
        Ok(true)
    }
}
