//! What has to wait for programs that are running, so that none mixes two states of a peer.
//!
//! A program reads a peer's session and its effective policy one after the other. What is narrowed
//! first and widened after a grace period is never seen half: so the number of the effective policy
//! waits for sessions that were narrowed, and a session waits for numbers that were changed. One wait
//! serves all that was written before it.

/// Which writes programs that run now may have missed.
#[derive(Debug)]
pub(super) struct Order {
    /// A session has been narrowed or locked since the last wait.
    sessions: bool,
    /// An effective policy that permits something has been taken from a peer since the last wait.
    classes: bool,
    waits: u64,
    grace_period: fn(),
}

impl Order {
    /// `unknown` where an earlier run may have written something just before it ended.
    pub(super) fn new(unknown: bool, grace_period: fn()) -> Self {
        Self {
            // A policy may be switched before the first session is locked, which costs no login time.
            sessions: true,
            classes: unknown,
            waits: 0,
            grace_period,
        }
    }

    /// A session has become narrower, or may have.
    pub(super) fn session_written(&mut self) {
        self.sessions = true;
    }

    /// A peer has another effective policy than `before`. Nobody's, 0, permits nothing: a program that
    /// has read that one authorises nothing by it.
    pub(super) fn class_written(&mut self, before: u32) {
        self.classes |= before != 0;
    }

    /// Comes before an effective policy is written: no program that has seen the session may see it.
    pub(super) fn before_class(&mut self) {
        if self.sessions {
            self.wait();
        }
    }

    /// Comes before a session is granted: no program that has seen the effective policy before may see
    /// the session.
    pub(super) fn before_grant(&mut self) {
        if self.classes {
            self.wait();
        }
    }

    /// How often something had to wait.
    pub(super) fn waits(&self) -> u64 {
        self.waits
    }

    fn wait(&mut self) {
        (self.grace_period)();
        (self.sessions, self.classes) = (false, false);
        self.waits += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        let mut order = Order::new(false, || ());
        // The first one waits for what was there before.
        order.before_class();
        order.waits = 0;
        order
    }

    #[test]
    fn inv1_a_session_waits_for_an_effective_policy_that_was_changed_before() {
        let mut order = order();
        order.class_written(7);
        order.before_grant();
        assert_eq!(order.waits(), 1);
    }

    #[test]
    fn many_peers_that_change_together_wait_twice() {
        let mut order = order();
        (0..9).for_each(|_| order.session_written());
        for _ in 0..9 {
            order.before_class();
            order.class_written(7);
        }
        assert_eq!(order.waits(), 1, "for the locks");
        for _ in 0..9 {
            order.before_grant();
            order.session_written();
        }
        assert_eq!(order.waits(), 2, "for the numbers");
    }

    #[test]
    fn a_login_does_not_wait_where_no_effective_policy_was_taken_away() {
        let mut order = order();
        order.before_grant();
        order.session_written();
        // A new peer's was nobody's.
        order.class_written(0);
        order.before_grant();
        assert_eq!(order.waits(), 0);
    }

    #[test]
    fn inv1_what_an_earlier_run_wrote_last_is_waited_for() {
        let mut order = Order::new(true, || ());
        order.before_grant();
        assert_eq!(order.waits(), 1);
    }
}
