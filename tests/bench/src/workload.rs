//! The load that the datapath is measured under: a million sessions and the largest policy.

use std::fmt::Write as _;

use anyhow::Result;
use datapath_tests::bench::{Bench, Family};
use portcullis_control::policy::{CompiledPolicy, Policy, Subject};

const RULES: u32 = 10_000;
const PREFIXES_PER_RULE: u32 = 10;
/// Groups that rules are for, and those that the peers' user is in.
const GROUPS: u32 = 500;
const MEMBER_OF: [&str; 3] = ["g1", "g2", "g3"];

/// Loads a policy of 10 000 rules and 100 000 prefixes.
pub fn with_policy(mut bench: Bench) -> Result<Bench> {
    eprintln!("loading {RULES} rules");
    let mut compiled = compile()?;
    let class = compiled.assign(&subject())?;
    bench
        .datapath()
        .switch_policy(Some((1, compiled.tables())), |_| class)?;
    Ok(bench)
}

fn subject() -> Subject {
    Subject {
        user: "bench".into(),
        groups: MEMBER_OF.map(str::to_owned).to_vec(),
    }
}

/// 10 000 rules for 100 000 prefixes, nearly; the one that permits the measured packets is among them.
fn compile() -> Result<CompiledPolicy> {
    let mut text = String::new();
    for rule in 0..RULES - 2 {
        let mut to = Vec::new();
        for prefix in 0..PREFIXES_PER_RULE {
            let number = rule * PREFIXES_PER_RULE + prefix;
            // Half of them IPv4, down to single subnets of each other.
            to.push(match number % 4 {
                0 => format!(
                    "\"10.{}.{}.0/24\"",
                    16 + number / 4 / 256 % 128,
                    number / 4 % 256
                ),
                1 => format!(
                    "\"172.{}.{}.{}/30\"",
                    16 + number / 4 % 16,
                    number / 64 % 256,
                    number / 16384 * 4
                ),
                _ => format!("\"fd09:{:x}:{:x}::/64\"", number >> 8, number & 0xff),
            });
        }
        write!(
            text,
            "[[rule]]\nname = \"rule-{rule}\"\nwho = [\"group:g{}\"]\nto = [{}]\nports = [\"tcp/{}\", \"tcp/8000-8999\", \"udp/53\"]\n\n",
            rule % GROUPS,
            to.join(", "),
            1 + rule % 1000,
        )?;
    }
    // Around the measured destination, for other ports: the look-up has to go on past them.
    write!(
        text,
        "[[rule]]\nname = \"wide\"\nwho = [\"group:{}\"]\nto = [\"10.0.0.0/8\", \"{}\", \"fd09::/16\", \"{}\"]\nports = [\"tcp/443\"]\n\n",
        MEMBER_OF[1],
        Family::V4.server(),
        Family::V6.server(),
    )?;
    write!(
        text,
        "[[rule]]\nname = \"measured\"\nwho = [\"group:{}\"]\nto = [\"10.9.0.0/16\", \"fd09::/64\"]\nports = [\"tcp/22\", \"udp/53\"]\n",
        MEMBER_OF[0],
    )?;
    let policy = Policy::parse(&text).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    Ok(CompiledPolicy::compile(&policy)?)
}
