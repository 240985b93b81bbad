-- Logins that wait for their user's phone to approve them. Each belongs to one login, and a newer one of the same
-- login takes its place.
CREATE TABLE approvals (
    -- The hash of the token that the phone presents.
    id TEXT PRIMARY KEY,
    -- As in login_attempts, or in outside_attempts where the place is `outside`.
    attempt_id TEXT NOT NULL UNIQUE,
    -- How the login was begun: `tunnel`, `proof` or `outside`.
    place TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Random. The token is derived of it and of the master key, so that the computer's page can be drawn again.
    seed TEXT NOT NULL,
    -- What the computer shows, and its user types into the phone.
    number BIGINT NOT NULL,
    -- Of the computer: an address inside the tunnel; outside of it an IPv4 address, or the first of an IPv6 /64.
    network TEXT NOT NULL,
    -- `waiting`, `approved`, `denied`, or `wrong` after a wrong number.
    state TEXT NOT NULL DEFAULT 'waiting',
    -- The challenge that waits for the phone's passkey, sealed. Empty: none does.
    ceremony TEXT NOT NULL DEFAULT '',
    begun_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX approvals_user ON approvals (user_id);
