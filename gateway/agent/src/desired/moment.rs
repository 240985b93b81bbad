//! From control's clock to the clock of the maps.

/// One instant on both clocks: what control's clock said in a message, and what the maps' clock
/// said when the message was received. The gateway's own wall clock takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch, on control's clock.
    pub control_ms: i64,
    /// Nanoseconds on the clock of the maps.
    pub map: u64,
}

impl Moment {
    /// The same instant on the clock of the maps. Before its beginning: 1, since 0 means "none".
    ///
    /// For instants at which something ends: one at which it began would seem later than it was, and
    /// what counts its age would be misled. Those are for [`Self::since`].
    pub fn to_map(self, control_ms: i64) -> u64 {
        self.on_map(control_ms).unwrap_or(1)
    }

    /// The same instant on the clock of the maps, of something whose age counts and that is over.
    /// Before the clock's beginning: 0, which is older than any age. Never after this moment.
    pub fn since(self, control_ms: i64) -> u64 {
        self.on_map(control_ms).map_or(0, |at| at.min(self.map))
    }

    fn on_map(self, control_ms: i64) -> Option<u64> {
        let distance = (i128::from(control_ms) - i128::from(self.control_ms)) * 1_000_000;
        let at = i128::from(self.map) + distance;
        (at >= 1).then(|| u64::try_from(at).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_keep_their_distance_and_never_wrap() {
        let moment = Moment {
            control_ms: 1_000_000,
            map: 5_000_000_000,
        };
        assert_eq!(moment.to_map(1_000_000), 5_000_000_000);
        assert_eq!(moment.to_map(1_000_001), 5_001_000_000);
        assert_eq!(moment.to_map(999_999), 4_999_000_000);
        assert_eq!(moment.to_map(0), 1);
        assert_eq!(moment.to_map(i64::MIN), 1);
        assert_eq!(moment.to_map(i64::MAX), u64::MAX);
    }

    #[test]
    fn inv2_an_age_is_never_understated() {
        // The machine was started 5 s before.
        let moment = Moment {
            control_ms: 1_000_000,
            map: 5_000_000_000,
        };
        assert_eq!(moment.since(999_000), 4_000_000_000);
        assert_eq!(moment.since(995_001), 1_000_000);
        assert_eq!(moment.since(995_000), 0);
        assert_eq!(moment.since(940_000), 0);
        assert_eq!(moment.since(i64::MIN), 0);
        assert_eq!(moment.since(i64::MAX), moment.map);
    }
}
