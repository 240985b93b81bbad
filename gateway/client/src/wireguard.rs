//! The configuration file of a stock WireGuard client, as wg-quick(8) and the apps read it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::keys::{KeyPair, PublicKey};

/// Everything that goes into a client's configuration.
#[derive(Debug)]
pub struct ClientConfig<'a> {
    /// Absent where the key pair was made elsewhere: the file then says where to put it.
    pub key_pair: Option<&'a KeyPair>,
    /// The device's tunnel addresses; a bare address stands for itself alone.
    pub addresses: &'a [String],
    pub dns: &'a [String],
    /// 0 leaves it to the client.
    pub mtu: u32,
    pub gateway_key: PublicKey,
    /// 32 bytes; empty where there is none.
    pub preshared_key: &'a [u8],
    /// `host:port` of the gateway.
    pub endpoint: &'a str,
    /// What is routed into the tunnel.
    pub allowed_ips: &'a [String],
    /// Seconds, 0 for off.
    pub persistent_keepalive_s: u32,
    /// Where to log in, for the comment at the top.
    pub portal_url: &'a str,
}

impl ClientConfig<'_> {
    /// The file's text.
    pub fn render(&self) -> Zeroizing<String> {
        // Room for any ordinary file, so that growing leaves no copy of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(4096));
        if !self.portal_url.is_empty() {
            line(&mut text, "# Log in at", self.portal_url);
        }
        text.push_str("[Interface]\n");
        match self.key_pair {
            Some(pair) => line(&mut text, "PrivateKey =", &pair.private_base64()),
            None => text.push_str("# PrivateKey = the private key that stays on the device\n"),
        }
        let addresses: Vec<String> = self.addresses.iter().map(|a| with_prefix(a)).collect();
        line(&mut text, "Address =", &addresses.join(", "));
        if !self.dns.is_empty() {
            line(&mut text, "DNS =", &self.dns.join(", "));
        }
        if self.mtu != 0 {
            line(&mut text, "MTU =", &self.mtu.to_string());
        }
        text.push_str("\n[Peer]\n");
        line(&mut text, "PublicKey =", &self.gateway_key.to_string());
        if !self.preshared_key.is_empty() {
            let key = Zeroizing::new(STANDARD.encode(self.preshared_key));
            line(&mut text, "PresharedKey =", &key);
        }
        line(&mut text, "Endpoint =", self.endpoint);
        line(&mut text, "AllowedIPs =", &self.allowed_ips.join(", "));
        if self.persistent_keepalive_s != 0 {
            line(
                &mut text,
                "PersistentKeepalive =",
                &self.persistent_keepalive_s.to_string(),
            );
        }
        text
    }
}

fn line(text: &mut String, key: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{key} {value}");
}

fn with_prefix(address: &str) -> String {
    if address.contains('/') {
        address.to_owned()
    } else if address.contains(':') {
        format!("{address}/128")
    } else {
        format!("{address}/32")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|&item| item.to_owned()).collect()
    }

    #[test]
    fn a_whole_file() {
        let pair = KeyPair::generate().unwrap();
        let addresses = strings(&["10.77.0.2", "fd77::2/128"]);
        let allowed_ips = strings(&["10.77.0.0/24", "fd77::/64", "10.9.0.0/24"]);
        let dns = strings(&["10.9.0.53"]);
        let config = ClientConfig {
            key_pair: Some(&pair),
            addresses: &addresses,
            dns: &dns,
            mtu: 1420,
            gateway_key: PublicKey::from([7; 32]),
            preshared_key: &[9; 32],
            endpoint: "vpn.example.org:51820",
            allowed_ips: &allowed_ips,
            persistent_keepalive_s: 25,
            portal_url: "https://10.77.0.1:443",
        };
        let expected = format!(
            "# Log in at https://10.77.0.1:443\n\
             [Interface]\n\
             PrivateKey = {}\n\
             Address = 10.77.0.2/32, fd77::2/128\n\
             DNS = 10.9.0.53\n\
             MTU = 1420\n\
             \n\
             [Peer]\n\
             PublicKey = {}\n\
             PresharedKey = {}\n\
             Endpoint = vpn.example.org:51820\n\
             AllowedIPs = 10.77.0.0/24, fd77::/64, 10.9.0.0/24\n\
             PersistentKeepalive = 25\n",
            pair.private_base64().as_str(),
            STANDARD.encode([7; 32]),
            STANDARD.encode([9; 32]),
        );
        assert_eq!(config.render().as_str(), expected);
    }

    #[test]
    fn what_is_not_there_is_left_out() {
        let config = ClientConfig {
            key_pair: None,
            addresses: &strings(&["10.77.0.2/32"]),
            dns: &[],
            mtu: 0,
            gateway_key: PublicKey::from([7; 32]),
            preshared_key: &[],
            endpoint: "192.0.2.1:51820",
            allowed_ips: &strings(&["10.77.0.0/24"]),
            persistent_keepalive_s: 0,
            portal_url: "",
        };
        let text = config.render();
        for key in [
            "DNS",
            "MTU",
            "PresharedKey",
            "PersistentKeepalive",
            "\nPrivateKey",
        ] {
            assert!(!text.contains(key), "{key} in {}", text.as_str());
        }
    }
}
