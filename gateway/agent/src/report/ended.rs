//! Sessions that ended in the kernel: their deadline has passed, or their peer was silent for
//! longer than its idle timeout. Neither comes back by itself: only packets that pass count.

use std::collections::HashSet;

use portcullis_proto::v1::SessionEnded;
use portcullis_proto::v1::session_ended::Cause;

use crate::datapath;
use crate::engine::Engine;

/// Those that control has not been told of.
pub(super) fn newly(engine: &mut Engine) -> Vec<SessionEnded> {
    let now = datapath::now();
    let mut ended = Vec::new();
    let mut reported = HashSet::new();
    for (key, peer) in engine
        .desired()
        .into_iter()
        .flat_map(|desired| desired.peers())
    {
        let Some(session) = &peer.session else {
            continue;
        };
        if engine.ended.contains(&session.tag) {
            reported.insert(session.tag);
            continue;
        }
        // Judged by what the kernel holds: it is what closed the session.
        let Some(held) = engine.kernel().get(key).and_then(|held| held.session()) else {
            continue;
        };
        let activity = engine
            .datapath()
            .activity(key.as_bytes())
            .unwrap_or(held.last_activity);
        let cause = if session.deadline <= now {
            Cause::Deadline
        } else if held.deadline <= now
            || (held.idle_timeout != 0 && activity.saturating_add(held.idle_timeout) <= now)
        {
            Cause::Idle
        } else {
            continue;
        };
        let report = SessionEnded {
            id: session.id.as_bytes().to_vec(),
            cause: cause.into(),
        };
        reported.insert(session.tag);
        ended.push(report);
    }
    // Without those that control has taken back since.
    engine.ended = reported;
    ended
}
