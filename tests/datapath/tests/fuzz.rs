//! Fuzzes without knowing what is covered: random stories, and policy files changed at random. A little
//! each time; `FUZZ_SECONDS=3600 cargo test -p datapath-tests --test fuzz` for as long as one likes.

use std::{
    env, panic,
    time::{Duration, Instant},
};

use datapath_tests::fuzz;

/// xorshift64*, seeded by the clock and told where something is found.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: usize) -> usize {
        (self.next() >> 33) as usize % most.max(1)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = self.below(most);
        (0..length).map(|_| (self.next() >> 40) as u8).collect()
    }
}

/// Runs `make` and `check` until the time is up.
fn fuzz(make: impl Fn(&mut Random) -> Vec<u8>, check: fn(&[u8])) {
    let seconds = env::var("FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(2));
    let begun = Instant::now();
    let seed = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_nanos() as u64 | 1);
    let mut random = Random(seed);
    let mut runs = 0_u64;
    while begun.elapsed() < time {
        let bytes = make(&mut random);
        if panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("seed {seed}, run {runs}: {bytes:02x?}");
        }
        runs += 1;
    }
    println!("{runs} runs in {:?}", begun.elapsed());
}

#[test]
fn inv8_no_story_makes_the_gate_do_what_it_must_not() {
    fuzz(|random| random.bytes(1500), fuzz::gate);
}

const FILE: &str = r#"
[[rule]]
name = "prod-ssh"
who = ["group:red", "user:ann"]
to = ["10.1.0.0/16", "fd00:1::/64", "10.1.2.3"]
ports = ["tcp/22", "tcp/8000-8999", "udp", "icmp", "47"]
action = "allow"
require = "phishing-resistant"
max_age = "15m"

[[rule]]
name = "push"
who = ["*"]
from = ["10.9.0.0/24", "::/0"]
ports = ["tcp/5985"]

[[rule]]
name = "never"
who = ["user:bob"]
to = ["0.0.0.0/0"]
action = "deny"
"#;
const WORDS: [&str; 30] = [
    "[[rule]]\n",
    "name = ",
    "who = ",
    "to = ",
    "from = ",
    "ports = ",
    "action = ",
    "require = ",
    "max_age = ",
    "\"*\"",
    "\"group:red\"",
    "\"user:ann\"",
    "\"deny\"",
    "\"none\"",
    "\"mfa\"",
    "\"tcp/1-65535\"",
    "\"tcp/65536\"",
    "\"udp/0\"",
    "\"icmp6\"",
    "\"255\"",
    "\"::ffff:10.0.0.0/104\"",
    "\"10.0.0.0/33\"",
    "\"fd00::/7\"",
    "\"0s\"",
    "[",
    "]",
    "\"",
    "\n",
    "'''",
    "\u{fe0f}",
];

/// The file with words put in, and parts left out or doubled.
fn changed(random: &mut Random) -> Vec<u8> {
    let mut file = FILE.as_bytes().to_vec();
    for _ in 0..random.below(8) {
        let at = random.below(file.len());
        let end = (at + random.below(40)).min(file.len());
        match random.below(5) {
            0 => drop(file.drain(at..end)),
            1 => {
                let part = file[at..end].to_vec();
                let to = random.below(file.len());
                file.splice(to..to, part);
            }
            2 => {
                if let Some(byte) = file.get_mut(at) {
                    *byte = random.next() as u8;
                }
            }
            // A line in place of another.
            3 => {
                let lines: Vec<&[u8]> = FILE.as_bytes().split_inclusive(|b| *b == b'\n').collect();
                let line = lines[random.below(lines.len())];
                let start = file[..at]
                    .iter()
                    .rposition(|b| *b == b'\n')
                    .map_or(0, |p| p + 1);
                let end = file[at..]
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(file.len(), |p| at + p + 1);
                file.splice(start..end, line.iter().copied());
            }
            _ => {
                let word = WORDS[random.below(WORDS.len())];
                file.splice(at..at, word.bytes());
            }
        }
    }
    file
}

#[test]
fn inv8_whatever_control_accepts_the_agent_understands_alike() {
    fuzz(changed, fuzz::policy);
}
