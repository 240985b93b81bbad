//! The shield on the network card.

use std::{fs, path::Path};

use super::Check;
use crate::{config::AgentConfig, datapath::ShieldState};

const NAME: &str = "shield";
/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";

pub(super) fn check(config: &AgentConfig) -> Check {
    let Some(shield) = &config.shield else {
        return Check::good(
            NAME,
            "off; [agent.shield] in the configuration switches it on",
        );
    };
    let card = &shield.interface;
    let path = Path::new("/sys/class/net").join(card);
    let Some(kind) = read(&path.join("type")) else {
        return Check::bad(
            NAME,
            format!("there is no interface {card}"),
            "name the network card in agent.shield.interface",
        );
    };
    if kind != ETHERNET {
        return Check::bad(
            NAME,
            format!("{card} is no Ethernet interface"),
            "name the network card in agent.shield.interface",
        );
    }
    let state = match ShieldState::read(&config.datapath()) {
        Ok(state) => state,
        Err(error) => {
            return Check::hint(NAME, format!("cannot be seen: {error}"), "look as root");
        }
    };
    let ifindex = read(&path.join("ifindex")).and_then(|index| index.parse().ok());
    match state.filter(|state| Some(state.ifindex) == ifindex) {
        Some(state) => {
            let mode = if state.native { "native" } else { "generic" };
            let learning = match state.learning.as_secs() {
                0 => String::new(),
                left => format!("; unknown indexes pass for {left} s more"),
            };
            Check::good(NAME, format!("on {card}, {mode}{learning}"))
        }
        None => Check::hint(
            NAME,
            format!("not on {card} yet"),
            "a running agent puts it there once it knows its location; if it does not, its log says why",
        ),
    }
}

fn read(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(interface: &str) -> AgentConfig {
        let shield = serde_json::json!({ "interface": interface });
        AgentConfig {
            shield: Some(serde_json::from_value(shield).expect("a section")),
            ..AgentConfig::default()
        }
    }

    #[test]
    fn a_card_that_cannot_be_shielded_is_named() {
        assert!(check(&AgentConfig::default()).found.starts_with("off"));
        let missing = check(&on("no-such-card"));
        assert!(!missing.ok && missing.found.contains("no-such-card"));
        let loopback = check(&on("lo"));
        assert!(!loopback.ok && loopback.advice.is_some(), "{loopback:?}");
    }
}
