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
    pub fn to_map(self, control_ms: i64) -> u64 {
        let distance = (i128::from(control_ms) - i128::from(self.control_ms)) * 1_000_000;
        u64::try_from((i128::from(self.map) + distance).max(1)).unwrap_or(u64::MAX)
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
}
