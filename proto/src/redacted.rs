//! `Debug` for messages that carry secrets: it shows everything else (and whether there is one).

use std::fmt::{Debug, Formatter, Result};

use crate::v1;

struct Redacted(bool);

impl Debug for Redacted {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(if self.0 { "(none)" } else { "(redacted)" })
    }
}

macro_rules! redact {
    ($message:ident { $($shown:ident),* } hides { $($secret:ident),* }) => {
        impl Debug for v1::$message {
            fn fmt(&self, f: &mut Formatter<'_>) -> Result {
                f.debug_struct(stringify!($message))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($secret), &Redacted(self.$secret.is_empty())))*
                    .finish()
            }
        }
    };
}

redact!(AddDeviceResponse {
    device, gateway_public_key, location, ca_fingerprint, portal_url
} hides { preshared_key });
redact!(DeviceInvite { user, location, expires_ms, server, ca_fingerprint } hides { token });
redact!(AddGatewayResponse { gateway, ca_fingerprint, control_url } hides { token });
redact!(AddSessionResponse { session } hides { preshared_key });
redact!(AddUserRequest { name, groups, role, invite, valid_ms } hides { password });
redact!(AddUserResponse { user, link } hides { totp_uri, totp_secret });
redact!(EnrollRequest { csr_der } hides { token });
redact!(EnrolmentLink { user, expires_ms, ca_fingerprint } hides { url });
redact!(Peer {
    public_key, allowed_ips, persistent_keepalive_s, session, policy
} hides { preshared_key });
redact!(RecoveryCodes { voided } hides { codes });
redact!(ResetUserRequest { name, totp } hides { password });
redact!(ResetUserResponse { revocation } hides { totp_uri, totp_secret });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_10_debug_shows_no_secret() {
        let peer = v1::Peer {
            preshared_key: vec![77; 32],
            ..Default::default()
        };
        let snapshot = v1::Snapshot {
            peers: vec![peer],
            ..Default::default()
        };
        let text = format!("{snapshot:?}");
        assert!(text.contains("preshared_key: (redacted)"), "{text}");
        assert!(!text.contains("77"), "{text}");
        let request = v1::AddUserRequest {
            password: "hunter22".into(),
            ..Default::default()
        };
        assert!(!format!("{request:?}").contains("hunter22"));
    }
}
