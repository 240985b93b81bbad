//! Why a packet passed or was dropped: one numbered list for counters, events, logs and documents.

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It ends here.
    Drop,
}

/// Slots per direction in the counter map: room for reasons to come without another ABI.
pub const REASON_SLOTS: u32 = 64;

macro_rules! reasons {
    ($($number:literal $verdict:ident $variant:ident $name:literal $explanation:literal;)+) => {
        /// Why a packet passed or was dropped. Numbers are never reused: they are the indices of
        /// the kernel's counters and travel in reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $(#[doc = $explanation] $variant = $number,)+
        }

        impl Reason {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The reason of this number.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// What it does to the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// The name in counters, logs and the command line.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// A sentence for a person.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $(Self::$variant => $explanation,)+
                }
            }
        }
    };
}

reasons! {
    0 Pass Session "session" "The peer's live session permits the packet, or the flow it belongs to.";
    1 Pass OpenService "open_service" "The packet goes to or comes from an address that is reachable before login.";
    2 Pass OpenRule "open_rule" "A rule permits the packet without a session.";
    3 Pass Answer "answer" "The gate's own answer to a packet that it dropped.";
    4 Pass Captive "captive" "Plain HTTP of a peer that has to log in: it is led to the portal, and the portal's answer back.";
    8 Drop NotIp "not_ip" "The packet is neither IPv4 nor IPv6.";
    9 Drop Truncated "truncated" "A header ends after the packet does.";
    10 Drop BadHeader "bad_header" "A header contradicts itself or the packet's length.";
    11 Drop BadOptions "bad_options" "The IPv4 options are malformed.";
    12 Drop SourceRoute "source_route" "The packet asks to be source-routed (IPv4 LSRR or SSRR, or an IPv6 routing header with segments left).";
    13 Drop ExtensionHeaders "extension_headers" "The IPv6 extension headers are too many, repeated or out of order.";
    14 Drop TinyFragment "tiny_fragment" "The first fragment does not hold the whole transport header.";
    15 Drop FragmentOverlap "fragment_overlap" "A later fragment would overlap the transport header.";
    16 Drop BadFragment "bad_fragment" "The fragment's length or offset is impossible.";
    17 Drop FragmentWithoutFirst "fragment_without_first" "No first fragment of the same datagram has passed.";
    18 Drop IcmpType "icmp_type" "An ICMP type other than echo and the errors that belong to a flow.";
    19 Drop IcmpErrorWithoutFlow "icmp_error_without_flow" "The ICMP error quotes a packet of no flow that passed.";
    20 Drop UnknownPeer "unknown_peer" "The tunnel address belongs to no peer.";
    21 Drop Martian "martian" "The source address can never be a sender's, or an IPv4-mapped address is on the wire.";
    22 Drop Locked "locked" "The peer has no session: it never logged in, or the session was revoked.";
    23 Drop Expired "expired" "The session's deadline has passed.";
    24 Drop Idle "idle" "The session was idle for longer than its idle timeout.";
    25 Drop LevelTooLow "level_too_low" "The session's assurance level is below what the destination requires.";
    26 Drop NotFresh "not_fresh" "The login is older than the destination allows.";
    27 Drop NoRule "no_rule" "No rule lets the peer reach the destination.";
    28 Drop Unsolicited "unsolicited" "The packet answers no flow that the peer opened, and no rule lets the sender reach the peer.";
    29 Drop MissingState "missing_state" "A map entry that must exist does not.";
    30 Drop Denied "denied" "A rule forbids it.";
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

const _: () = {
    let mut i = 0;
    while i < Reason::ALL.len() {
        assert!((Reason::ALL[i] as u32) < REASON_SLOTS);
        i += 1;
    }
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{fmt::Write as _, fs, string::String};

    use super::*;

    #[test]
    fn inv9_numbers_and_names_are_unique_and_lead_back_to_the_reason() {
        for (i, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(Reason::from_number(reason as u8), Some(reason));
            for &other in &Reason::ALL[..i] {
                assert_ne!(reason.name(), other.name());
                assert!((other as u8) < reason as u8);
            }
        }
    }

    #[test]
    fn inv9_the_document_lists_every_reason() {
        let mut wanted = String::from(
            "# Why a packet passed or was dropped\n\n\
             Made from `gateway-common/src/verdict.rs`; its tests compare the two (`UPDATE_DOCS=1 cargo test -p \
             gateway-common` writes it anew).\n\
             The kernel counts every packet under one of these, for each direction.\n\n\
             | number | name | verdict | meaning |\n|---|---|---|---|\n",
        );
        for reason in Reason::ALL {
            let verdict = match reason.verdict() {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
            };
            writeln!(
                wanted,
                "| {} | `{reason}` | {verdict} | {} |",
                *reason as u8,
                reason.explanation()
            )
            .unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drop-reasons.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path, &wanted).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap_or_default(), wanted);
    }
}
