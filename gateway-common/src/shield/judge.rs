//! The shield's one decision.

use crate::{abi::AddressV6, parse::Bytes};

use super::{
    BUCKET_SLOTS, Bucket, Budget, Datagram, Kind, Message, SESSION_LIFE, ShieldReason,
    ShieldSettings, Slot, admit, source_key,
};

/// The state that a message is judged by.
pub trait Tables {
    /// Nanoseconds of [`crate::clock`]. Asked only by what needs it.
    fn now(&self) -> u64;

    /// The bucket of this number.
    fn bucket(&self, number: u32) -> Option<&Bucket>;

    /// Puts `new` in place of `old`, unless that has changed since.
    fn replace(&mut self, number: u32, slot: usize, old: Slot, new: Slot);

    /// State of this source's budget; 0 for one not seen of late.
    fn source(&self, key: u64) -> u64;

    /// Writes it.
    fn set_source(&mut self, key: u64, state: u64);

    /// State of the overall budget.
    fn overall(&self) -> u64;

    /// Writes it.
    fn set_overall(&mut self, state: u64);

    /// Whether the gateway has answered an initiation from this source before.
    fn is_known(&self, key: u64) -> bool;
}

impl ShieldSettings {
    /// Whether the datagram is for WireGuard on this machine. What it forwards is none of our business,
    /// also where the port is the same.
    #[inline(always)]
    pub fn is_ours<B: Bytes>(&self, frame: &B, datagram: &Datagram) -> bool {
        datagram.destination_port == self.port
            && self.port != 0
            && datagram
                .destination(frame)
                .is_some_and(|address| self.is_local(datagram.is_v6, address))
    }

    #[inline(always)]
    fn is_local(&self, is_v6: bool, wanted: AddressV6) -> bool {
        if is_v6 {
            for address in &self.local_v6 {
                if *address == wanted {
                    return true;
                }
                if address.0[0] == 0 {
                    return false;
                }
            }
        } else {
            for &address in &self.local_v4 {
                if address == wanted.0[3] {
                    return true;
                }
                if address == 0 {
                    return false;
                }
            }
        }
        false
    }
}

/// What happens to a message for WireGuard, or to what is none.
#[inline(always)]
pub fn judge<T: Tables, B: Bytes>(
    tables: &mut T,
    settings: &ShieldSettings,
    frame: &B,
    datagram: &Datagram,
    message: Result<Message, ShieldReason>,
) -> ShieldReason {
    match message {
        Ok(Message::Data { receiver }) => {
            receiving(tables, settings, receiver, false, ShieldReason::DeadIndex)
        }
        Ok(Message::Cookie { receiver }) => {
            receiving(tables, settings, receiver, false, ShieldReason::Unexpected)
        }
        Ok(Message::Response { receiver, .. }) => {
            receiving(tables, settings, receiver, true, ShieldReason::Unexpected)
        }
        Ok(Message::Initiation { .. }) => match datagram.source(frame) {
            Some(source) => initiation(tables, settings, source_key(datagram.is_v6, source)),
            None => ShieldReason::OutOfSight,
        },
        Err(reason) => reason,
    }
}

/// A message to an index; `otherwise` is what it is where nothing speaks for it.
#[inline(always)]
fn receiving<T: Tables>(
    tables: &mut T,
    settings: &ShieldSettings,
    index: u32,
    is_response: bool,
    otherwise: ShieldReason,
) -> ShieldReason {
    let number = index & settings.mask;
    // It must exist. Where it does not, nothing is known.
    let Some(bucket) = tables.bucket(number) else {
        return ShieldReason::Learning;
    };
    for position in 0..BUCKET_SLOTS {
        let slot = Slot(bucket.slots[position]);
        // Reading the clock costs more than all else here: not for an index that is nowhere.
        if slot.index() != index {
            continue;
        }
        let now = tables.now();
        if slot.is_free(now) {
            continue;
        }
        if !is_response {
            return ShieldReason::Live;
        }
        if !slot.is_initiator() {
            return ShieldReason::Unexpected;
        }
        // WireGuard counts the session's age from here. Later ones pass, too: whoever saw the initiation
        // could otherwise keep the genuine response out by being faster with a forged one.
        if slot.is_pending() {
            tables.replace(
                number,
                position,
                slot,
                Slot::new(index, Kind::Answered, now, SESSION_LIFE),
            );
        }
        return ShieldReason::Live;
    }
    // Both are zero nearly always.
    if settings.learning_until | bucket.lenient_until == 0 {
        return otherwise;
    }
    let now = tables.now();
    if settings.learning_until > now {
        ShieldReason::Learning
    } else if bucket.lenient_until > now {
        ShieldReason::Crowded
    } else {
        otherwise
    }
}

/// First the source's own budget, so that a flood of one source takes nothing of the others' part. But
/// sources can be forged: one that the gateway has answered before has the overall budget as well, or
/// whoever sends in its name could keep it from renewing its session.
#[inline(always)]
fn initiation<T: Tables>(tables: &mut T, settings: &ShieldSettings, source: u64) -> ShieldReason {
    let now = tables.now();
    let mut within = true;
    if settings.source
        != (Budget {
            interval: 0,
            burst: 0,
        })
    {
        match admit(settings.source, tables.source(source), now) {
            Some(state) => tables.set_source(source, state),
            None if tables.is_known(source) => within = false,
            None => return ShieldReason::SourceBudget,
        }
    }
    match admit(settings.overall, tables.overall(), now) {
        Some(state) => {
            tables.set_overall(state);
            ShieldReason::Initiation
        }
        None if !within => ShieldReason::SourceBudget,
        // Forged sources use the overall budget up; who has been here before need not suffer.
        None if tables.is_known(source) => ShieldReason::KnownSource,
        None => ShieldReason::OverallBudget,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashMap, vec, vec::Vec};

    use super::*;
    use crate::{
        clock::SECOND,
        parse::Slice,
        shield::{LEARNING, PENDING_LIFE},
    };

    const MASK: u32 = 3;
    const NOW: u64 = 1_000 * SECOND;

    struct Memory {
        now: u64,
        buckets: Vec<Bucket>,
        sources: HashMap<u64, u64>,
        overall: u64,
        known: Vec<u64>,
    }

    impl Tables for Memory {
        fn now(&self) -> u64 {
            self.now
        }
        fn bucket(&self, number: u32) -> Option<&Bucket> {
            self.buckets.get(number as usize)
        }
        fn replace(&mut self, number: u32, slot: usize, old: Slot, new: Slot) {
            let word = &mut self.buckets[number as usize].slots[slot];
            assert_eq!(*word, old.0);
            *word = new.0;
        }
        fn source(&self, key: u64) -> u64 {
            self.sources.get(&key).copied().unwrap_or(0)
        }
        fn set_source(&mut self, key: u64, state: u64) {
            self.sources.insert(key, state);
        }
        fn overall(&self) -> u64 {
            self.overall
        }
        fn set_overall(&mut self, state: u64) {
            self.overall = state;
        }
        fn is_known(&self, key: u64) -> bool {
            self.known.contains(&key)
        }
    }

    fn memory() -> Memory {
        Memory {
            now: NOW,
            buckets: vec![Bucket::default(); MASK as usize + 1],
            sources: HashMap::new(),
            overall: 0,
            known: Vec::new(),
        }
    }

    fn settings() -> ShieldSettings {
        let mut settings = ShieldSettings {
            source: Budget::new(10, 5),
            overall: Budget::new(100, 20),
            mask: MASK,
            port: 51820,
            ..ShieldSettings::default()
        };
        settings.local_v4[0] = 7;
        settings.local_v6[0] = AddressV6([1, 0, 0, 7]);
        settings
    }

    /// An IPv4 header with these addresses, up to the ports.
    fn frame(source: u32, destination: u32) -> Vec<u8> {
        let mut bytes = vec![0x45; 12];
        bytes.extend(source.to_ne_bytes());
        bytes.extend(destination.to_ne_bytes());
        bytes
    }

    const DATAGRAM: Datagram = Datagram {
        is_v6: false,
        network: 0,
        source_port: 9,
        destination_port: 51820,
        length: Some(148),
        payload: 28,
    };

    fn ask_with(
        memory: &mut Memory,
        settings: &ShieldSettings,
        message: Result<Message, ShieldReason>,
        now: u64,
    ) -> ShieldReason {
        memory.now = now;
        judge(memory, settings, &Slice(&frame(1, 7)), &DATAGRAM, message)
    }

    fn ask(memory: &mut Memory, message: Message, now: u64) -> ShieldReason {
        ask_with(memory, &settings(), Ok(message), now)
    }

    #[test]
    fn only_live_indexes_get_data_through() {
        let mut tables = memory();
        tables.buckets[1].slots[4] = Slot::new(5, Kind::Session, NOW, SESSION_LIFE).0;
        let data = |receiver| Message::Data { receiver };
        assert_eq!(ask(&mut tables, data(5), NOW), ShieldReason::Live);
        assert_eq!(
            ask(&mut tables, data(9), NOW),
            ShieldReason::DeadIndex,
            "same bucket"
        );
        assert_eq!(
            ask(&mut tables, data(0), NOW),
            ShieldReason::DeadIndex,
            "a free slot is no index 0"
        );
        assert_eq!(
            ask(&mut tables, data(5), NOW + SESSION_LIFE + SECOND),
            ShieldReason::DeadIndex
        );
    }

    #[test]
    fn a_response_to_an_initiation_passes_and_the_first_renews_its_index() {
        let mut tables = memory();
        tables.buckets[2].slots[0] = Slot::new(6, Kind::Pending, NOW, PENDING_LIFE).0;
        let response = Message::Response {
            sender: 1,
            receiver: 6,
        };
        assert_eq!(
            ask(&mut tables, Message::Cookie { receiver: 6 }, NOW),
            ShieldReason::Live
        );
        let late = NOW + PENDING_LIFE;
        assert_eq!(ask(&mut tables, response, late), ShieldReason::Live);
        assert_eq!(
            ask(&mut tables, response, late + 4 * SECOND),
            ShieldReason::Live,
            "the first may have been a forgery"
        );
        assert_eq!(
            ask(
                &mut tables,
                Message::Data { receiver: 6 },
                late + SESSION_LIFE
            ),
            ShieldReason::Live
        );
        let data = Message::Data { receiver: 6 };
        let over = late + SESSION_LIFE + SECOND;
        assert_eq!(ask(&mut tables, data, over), ShieldReason::DeadIndex);
        tables.buckets[3].slots[0] = Slot::new(7, Kind::Session, NOW, SESSION_LIFE).0;
        let response = Message::Response {
            sender: 1,
            receiver: 7,
        };
        assert_eq!(ask(&mut tables, response, NOW), ShieldReason::Unexpected);
        tables.buckets[3].slots[0] = 0;
        assert_eq!(
            ask(&mut tables, Message::Cookie { receiver: 7 }, NOW),
            ShieldReason::Unexpected
        );
    }

    #[test]
    fn unknown_indexes_pass_while_learning_and_where_it_is_crowded() {
        let mut tables = memory();
        tables.buckets[1].lenient_until = NOW + LEARNING;
        let learning = ShieldSettings {
            learning_until: NOW + 1,
            ..settings()
        };
        for message in [
            Message::Data { receiver: 4 },
            Message::Cookie { receiver: 4 },
            Message::Response {
                sender: 1,
                receiver: 4,
            },
        ] {
            assert_eq!(
                ask_with(&mut tables, &learning, Ok(message), NOW),
                ShieldReason::Learning
            );
            assert_ne!(
                ask_with(&mut tables, &learning, Ok(message), NOW + 1),
                ShieldReason::Learning
            );
        }
        assert_eq!(
            ask(&mut tables, Message::Data { receiver: 5 }, NOW),
            ShieldReason::Crowded
        );
        assert_eq!(
            ask(&mut tables, Message::Data { receiver: 6 }, NOW),
            ShieldReason::DeadIndex
        );
        assert_eq!(
            ask_with(&mut tables, &learning, Err(ShieldReason::Malformed), NOW),
            ShieldReason::Malformed
        );
    }

    #[test]
    fn a_flood_of_one_source_leaves_room_for_others_and_a_flood_of_all_for_known_ones() {
        let mut tables = memory();
        let knock = |tables: &mut Memory, source| {
            let message = Ok(Message::Initiation { sender: 1 });
            judge(
                tables,
                &settings(),
                &Slice(&frame(source, 7)),
                &DATAGRAM,
                message,
            )
        };
        let passed = (0..1_000)
            .filter(|_| knock(&mut tables, 1) == ShieldReason::Initiation)
            .count();
        assert_eq!(passed, 5);
        assert_eq!(knock(&mut tables, 1), ShieldReason::SourceBudget);
        assert_eq!(knock(&mut tables, 2), ShieldReason::Initiation);
        let passed = (3..1_000)
            .filter(|&source| knock(&mut tables, source) == ShieldReason::Initiation)
            .count();
        assert_eq!(passed, 20 - 6);
        assert_eq!(knock(&mut tables, 2_000), ShieldReason::OverallBudget);
        tables
            .known
            .push(source_key(false, AddressV6([0, 0, 0, 2_001])));
        assert_eq!(knock(&mut tables, 2_001), ShieldReason::KnownSource);
    }

    #[test]
    fn who_forges_a_known_source_does_not_keep_it_out() {
        let mut tables = memory();
        tables
            .known
            .push(source_key(false, AddressV6([0, 0, 0, 1])));
        let mut knock = || {
            let message = Ok(Message::Initiation { sender: 1 });
            let frame = frame(1, 7);
            judge(&mut tables, &settings(), &Slice(&frame), &DATAGRAM, message)
        };
        // Its own budget is five. A flood still ends at the overall one.
        let passed = (0..1_000)
            .filter(|_| knock() == ShieldReason::Initiation)
            .count();
        assert_eq!(passed, 20);
        assert_eq!(knock(), ShieldReason::SourceBudget);
    }

    #[test]
    fn what_goes_elsewhere_is_not_ours() {
        let (here, there) = (frame(1, 7), frame(1, 8));
        let ours = |settings: ShieldSettings, frame: &[u8], datagram| {
            settings.is_ours(&Slice(frame), &datagram)
        };
        assert!(ours(settings(), &here, DATAGRAM));
        assert!(!ours(settings(), &there, DATAGRAM));
        assert!(!ours(
            settings(),
            &here,
            Datagram {
                destination_port: 53,
                ..DATAGRAM
            }
        ));
        assert!(
            !ours(
                settings(),
                &here,
                Datagram {
                    is_v6: true,
                    ..DATAGRAM
                }
            ),
            "past the end"
        );
        let none = Datagram {
            destination_port: 0,
            ..DATAGRAM
        };
        assert!(!ours(ShieldSettings::default(), &frame(0, 0), none));
        let mut v6 = vec![0; 24];
        for word in [1_u32, 0, 0, 7] {
            v6.extend(word.to_ne_bytes());
        }
        assert!(ours(
            settings(),
            &v6,
            Datagram {
                is_v6: true,
                ..DATAGRAM
            }
        ));
        v6[39] ^= 1;
        assert!(!ours(
            settings(),
            &v6,
            Datagram {
                is_v6: true,
                ..DATAGRAM
            }
        ));
    }
}
