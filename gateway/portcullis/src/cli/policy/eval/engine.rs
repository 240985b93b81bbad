//! What decides.

use std::time::Duration;

use anyhow::Result;
use portcullis_agent::datapath::{Case, Terms, Trial};
use portcullis_control::policy::CompiledPolicy;
use portcullis_control::policy::eval::{Answer, Session, Vector, evaluate};

pub(super) enum Engine {
    /// This process.
    Userspace,
    /// The kernel of this machine.
    Kernel(Box<Trial>),
}

impl Engine {
    /// To be called before [`Self::decide`] whenever there are other tables, or more classes.
    pub(super) fn load(&mut self, compiled: &CompiledPolicy) -> Result<()> {
        match self {
            Self::Userspace => Ok(()),
            Self::Kernel(trial) => Ok(trial.load(compiled.tables())?),
        }
    }

    pub(super) fn decide(
        &mut self,
        compiled: &CompiledPolicy,
        class: u32,
        vector: &Vector,
    ) -> Result<Answer> {
        match self {
            Self::Userspace => Ok(evaluate(compiled, class, vector)),
            Self::Kernel(trial) => {
                let judged = trial.judge(&Case {
                    address: vector.peer.address,
                    class,
                    session: vector.session.as_ref().map(terms),
                    direction: vector.packet.direction.into(),
                    packet: &vector.packet_bytes(),
                })?;
                Ok(Answer::new(compiled, judged.reason, judged.rule))
            }
        }
    }
}

fn terms(session: &Session) -> Terms {
    // No vector has more than a century.
    let ns = |seconds| u64::try_from(Duration::from_secs(seconds).as_nanos()).unwrap_or(u64::MAX);
    Terms {
        level: session.level,
        age: ns(session.age_s),
        lifetime: ns(session.lifetime_s),
        idle: ns(session.idle_s),
        idle_timeout: ns(session.idle_timeout_s.unwrap_or(0)),
    }
}
