//! Protocols and ports on one line, so that a rule's are intervals of it.

use std::fmt;

pub(super) use gateway_common::abi::port_key as key;

use super::outcome::Outcome;
use super::ports::{NAMED, PortSpec};

/// An interval of `protocol << 16 | port`, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortSpan {
    /// First key.
    pub first: u32,
    /// Last key.
    pub last: u32,
}

impl From<PortSpec> for PortSpan {
    fn from(spec: PortSpec) -> Self {
        let (first, last) = match spec {
            PortSpec::Any => (key(0, 0), key(u8::MAX, u16::MAX)),
            PortSpec::Protocol(protocol) => (key(protocol, 0), key(protocol, u16::MAX)),
            PortSpec::Ports {
                protocol,
                first,
                last,
            } => (key(protocol, first), key(protocol, last)),
        };
        Self { first, last }
    }
}

/// As in a rule, where a rule can say it: `tcp/22`, `udp`, `any`; else in pieces.
impl fmt::Display for PortSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first >> 16, self.last >> 16);
        let (low, high) = (self.first & 0xffff, self.last & 0xffff);
        if *self == Self::from(PortSpec::Any) {
            return f.write_str("any");
        }
        if first == last {
            return within(f, first, low, high);
        }
        let mut whole = first..=last;
        let mut separate = false;
        if low != 0 {
            whole = first + 1..=last;
            within(f, first, low, 0xffff)?;
            separate = true;
        }
        let partial_end = high != 0xffff;
        if partial_end {
            whole = *whole.start()..=last - 1;
        }
        if whole.start() <= whole.end() {
            f.write_str(if separate { "," } else { "" })?;
            if whole.start() == whole.end() {
                within(f, *whole.start(), 0, 0xffff)?;
            } else {
                write!(f, "{}-{}", whole.start(), whole.end())?;
            }
            separate = true;
        }
        if partial_end {
            f.write_str(if separate { "," } else { "" })?;
            within(f, last, 0, high)?;
        }
        Ok(())
    }
}

/// Ports of one protocol.
fn within(f: &mut fmt::Formatter<'_>, protocol: u32, low: u32, high: u32) -> fmt::Result {
    match NAMED
        .iter()
        .find(|(_, number)| u32::from(*number) == protocol)
    {
        Some((name, _)) => f.write_str(name)?,
        None => write!(f, "{protocol}")?,
    }
    match (low, high) {
        (0, 0xffff) => Ok(()),
        (low, high) if low == high => write!(f, "/{low}"),
        (low, high) => write!(f, "/{low}-{high}"),
    }
}

/// An interval and what holds in it. A list of these is sorted and without overlap; no outcome in
/// the gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Stretch<O> {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) outcome: O,
}

/// Two lists as one: where both say something, what they say together.
pub(super) fn merge(
    a: impl IntoIterator<Item = Stretch<Outcome>>,
    b: impl IntoIterator<Item = Stretch<Outcome>>,
) -> Vec<Stretch<Outcome>> {
    let mut merged = Vec::new();
    sweep(a, b, |first, last, one, two| {
        let outcome = match (one, two) {
            (Some(one), Some(two)) => one.merge(two),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        push(
            &mut merged,
            Stretch {
                first,
                last,
                outcome,
            },
        );
    });
    merged
}

/// Appends, as one with the last stretch where it goes on with the same.
pub(super) fn push<O: PartialEq>(list: &mut Vec<Stretch<O>>, next: Stretch<O>) {
    match list.last_mut() {
        Some(last) if last.last + 1 == next.first && last.outcome == next.outcome => {
            last.last = next.last
        }
        _ => list.push(next),
    }
}

/// Walks over two lists at once: each stretch in which neither changes, in order.
pub(super) fn sweep<O: Copy>(
    a: impl IntoIterator<Item = Stretch<O>>,
    b: impl IntoIterator<Item = Stretch<O>>,
    mut visit: impl FnMut(u32, u32, Option<O>, Option<O>),
) {
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let (mut x, mut y) = (a.next(), b.next());
    loop {
        let first = match (&x, &y) {
            (None, None) => return,
            (Some(x), None) => x.first,
            (None, Some(y)) => y.first,
            (Some(x), Some(y)) => x.first.min(y.first),
        };
        // Up to where the nearer one ends, or the other begins.
        let end = |one: &Option<Stretch<O>>| {
            one.as_ref().map_or(u32::MAX, |one| {
                if one.first > first {
                    one.first - 1
                } else {
                    one.last
                }
            })
        };
        let last = end(&x).min(end(&y));
        let here = |one: &Option<Stretch<O>>| {
            one.as_ref()
                .filter(|one| one.first == first)
                .map(|one| one.outcome)
        };
        visit(first, last, here(&x), here(&y));
        advance(&mut x, &mut a, first, last);
        advance(&mut y, &mut b, first, last);
    }
}

fn advance<O: Copy>(
    at: &mut Option<Stretch<O>>,
    rest: &mut impl Iterator<Item = Stretch<O>>,
    first: u32,
    last: u32,
) {
    match at {
        Some(stretch) if stretch.first == first && stretch.last == last => *at = rest.next(),
        Some(stretch) if stretch.first == first => stretch.first = last + 1,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_print_as_rules_are_written() {
        for text in ["tcp/22", "tcp/8000-8999", "udp", "icmp", "47"] {
            assert_eq!(
                PortSpan::from(PortSpec::parse(text).unwrap()).to_string(),
                text
            );
        }
        assert_eq!(PortSpan::from(PortSpec::Any).to_string(), "any");
        let pieces = [
            (key(0, 0), key(6, 21), "0-5,tcp/0-21"),
            (key(6, 23), key(255, 65535), "tcp/23-65535,7-255"),
            (key(6, 23), key(17, 52), "tcp/23-65535,7-16,udp/0-52"),
            (key(6, 23), key(7, 52), "tcp/23-65535,7/0-52"),
            (key(5, 0), key(6, 9), "5,tcp/0-9"),
        ];
        for (first, last, text) in pieces {
            assert_eq!(PortSpan { first, last }.to_string(), text);
        }
    }

    #[test]
    fn a_sweep_stops_wherever_either_changes() {
        let list = |spans: &[(u32, u32, u8)]| -> Vec<Stretch<u8>> {
            spans
                .iter()
                .map(|&(first, last, outcome)| Stretch {
                    first,
                    last,
                    outcome,
                })
                .collect()
        };
        let mut seen = Vec::new();
        sweep(
            list(&[(0, 9, 1), (10, 10, 2), (30, 40, 3)]),
            list(&[(5, 35, 7)]),
            |f, l, a, b| seen.push((f, l, a, b)),
        );
        assert_eq!(
            seen,
            [
                (0, 4, Some(1), None),
                (5, 9, Some(1), Some(7)),
                (10, 10, Some(2), Some(7)),
                (11, 29, None, Some(7)),
                (30, 35, Some(3), Some(7)),
                (36, 40, Some(3), None),
            ]
        );
    }
}
