//! One `[[rule]]`.

use std::time::Duration;

use gateway_common::abi::{Direction, Level};
use ipnet::IpNet;
use toml::Spanned;
use toml::de::DeValue;

use super::Document;
use super::fields::{self, Field, Fields};
use crate::policy::limits;
use crate::policy::ports::PortSpec;
use crate::policy::prefix;
use crate::policy::principal::Principal;
use crate::policy::problem::Fault;
use crate::policy::rule::{Action, Rule};

const KEYS: [&str; 8] = [
    "name", "who", "to", "from", "ports", "action", "require", "max_age",
];
const NAME_BYTES: usize = 64;
/// No session lives longer, and it is far from overflowing nanoseconds.
const LONGEST_AGE: Duration = Duration::from_secs(10 * 366 * 86_400);

impl Document<'_> {
    /// Reads a rule; `None` with problems noted where anything in it is wrong.
    pub(super) fn rule(&mut self, entry: &Spanned<DeValue<'_>>) -> Option<Rule> {
        let DeValue::Table(table) = entry.get_ref() else {
            let found = fields::kind(entry.get_ref());
            self.problem(
                entry.span(),
                None,
                Fault::WrongType {
                    key: "rule",
                    expected: "a table",
                    found,
                },
            );
            return None;
        };
        let named = table.get("name").and_then(|name| name.get_ref().as_str());
        let fields = Fields { table, name: named };
        for (key, _) in table {
            if !KEYS.contains(&key.get_ref().as_ref()) {
                let expected = "a rule has name, who, to or from, ports, action, require, max_age";
                let key_name = key.get_ref().clone().into_owned();
                fields.problem(
                    self,
                    key,
                    Fault::UnknownKey {
                        key: key_name,
                        expected,
                    },
                );
            }
        }
        // All of them before any `?`: every problem of the rule is to be noted.
        let name = self.name(&fields, entry);
        let who = fields.list(
            self,
            "who",
            "name whom the rule is about, or write [\"*\"]",
            Principal::parse,
        );
        let who = self.required(&fields, entry, "who", who);
        let remote = self.remote(&fields, entry);
        let ports = fields.list(
            self,
            "ports",
            "leave it out for every protocol",
            PortSpec::parse,
        );
        let action = self.action(&fields);
        let (direction, prefixes) = remote?;
        self.count(&fields, entry, direction, &prefixes);
        let ports = match ports {
            Field::Absent => vec![PortSpec::Any],
            Field::Bad => return None,
            Field::Good(ports) => ports,
        };
        let line = self.lines.at(entry.span().start);
        Some(Rule {
            name: name?,
            line,
            who: who?,
            direction,
            prefixes,
            ports,
            action: action?,
        })
    }

    fn required<T>(
        &mut self,
        fields: &Fields<'_>,
        entry: &Spanned<DeValue<'_>>,
        key: &'static str,
        field: Field<T>,
    ) -> Option<T> {
        match field {
            Field::Good(value) => Some(value),
            Field::Bad => None,
            Field::Absent => {
                fields.problem(self, entry, Fault::Missing { key });
                None
            }
        }
    }

    fn name(&mut self, fields: &Fields<'_>, entry: &Spanned<DeValue<'_>>) -> Option<String> {
        let name = fields.parsed(self, "name", |text| {
            let printable = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
            let sized = (1..=NAME_BYTES).contains(&text.len());
            if printable && sized && text.trim() == text {
                Ok(text.to_owned())
            } else {
                Err(Fault::Name(text.to_owned()))
            }
        });
        let name = self.required(fields, entry, "name", name)?;
        if let Some(&first) = self.names.get(&name) {
            fields.problem(self, entry, Fault::DuplicateName { first });
            return None;
        }
        self.names
            .insert(name.clone(), self.lines.at(entry.span().start));
        Some(name)
    }

    fn remote(
        &mut self,
        fields: &Fields<'_>,
        entry: &Spanned<DeValue<'_>>,
    ) -> Option<(Direction, Vec<IpNet>)> {
        let if_empty = "name at least one address or CIDR";
        let to = fields.list(self, "to", if_empty, prefix::parse);
        let from = fields.list(self, "from", if_empty, prefix::parse);
        match (to, from) {
            (Field::Absent, Field::Absent) => {
                fields.problem(self, entry, Fault::NoDirection);
                None
            }
            (Field::Good(to), Field::Absent) => Some((Direction::FromPeer, to)),
            (Field::Absent, Field::Good(from)) => Some((Direction::ToPeer, from)),
            (Field::Bad, Field::Absent) | (Field::Absent, Field::Bad) => None,
            _ => {
                fields.problem(self, entry, Fault::BothDirections);
                None
            }
        }
    }

    fn action(&mut self, fields: &Fields<'_>) -> Option<Action> {
        let deny = fields.parsed(self, "action", |text| match text {
            "allow" => Ok(false),
            "deny" => Ok(true),
            _ => Err(Fault::Action(text.to_owned())),
        });
        let level = fields.parsed(self, "require", |text| match text {
            "none" => Ok(Level::None),
            "mfa" => Ok(Level::Mfa),
            "phishing-resistant" => Ok(Level::PhishingResistant),
            _ => Err(Fault::Require(text.to_owned())),
        });
        let max_age = fields.parsed(self, "max_age", max_age);
        if matches!(deny, Field::Good(true)) {
            let keys = ["require", "max_age"];
            let present = keys
                .into_iter()
                .filter_map(|key| Some((key, fields.table.get(key)?)));
            for (key, value) in present {
                fields.problem(self, value, Fault::OnDeny { key });
            }
            return (level.is_absent() && max_age.is_absent()).then_some(Action::Deny);
        }
        if matches!(level, Field::Good(Level::None))
            && let Some(value) = fields.table.get("max_age")
        {
            fields.problem(self, value, Fault::MaxAgeWithoutLogin);
            return None;
        }
        let level = match level {
            Field::Absent => Level::Mfa,
            Field::Bad => return None,
            Field::Good(level) => level,
        };
        let max_age = match max_age {
            Field::Absent => None,
            Field::Bad => return None,
            Field::Good(age) => Some(age),
        };
        (!matches!(deny, Field::Bad)).then_some(Action::Allow { level, max_age })
    }

    /// Takes the prefixes into account, and notes once where they become too many.
    fn count(
        &mut self,
        fields: &Fields<'_>,
        entry: &Spanned<DeValue<'_>>,
        direction: Direction,
        prefixes: &[IpNet],
    ) {
        self.prefixes
            .extend(prefixes.iter().map(|prefix| (direction as u8, *prefix)));
        if self.prefixes.len() > limits::PREFIXES && !self.prefixes_full {
            self.prefixes_full = true;
            fields.problem(self, entry, Fault::TooManyPrefixes);
        }
    }
}

fn max_age(text: &str) -> Result<Duration, Fault> {
    let bad = |reason: String| Fault::MaxAge {
        text: text.to_owned(),
        reason,
    };
    let age = humantime::parse_duration(text)
        .map_err(|error| bad(format!("{error}; write it as in \"15m\"")))?;
    if !(Duration::from_secs(1)..=LONGEST_AGE).contains(&age) {
        return Err(bad("from one second to ten years".to_owned()));
    }
    Ok(age)
}
