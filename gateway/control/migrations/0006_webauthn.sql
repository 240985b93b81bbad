-- Passkeys and security keys. The credential is a public key and holds no secret; it is sealed all the
-- same, bound to its row and its user, so that whoever can write to the database cannot plant one.
CREATE TABLE webauthn_credentials (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- As the authenticator calls it, base64url: one credential belongs to one account (WebAuthn 3, 7.1).
    credential_id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    credential TEXT NOT NULL,
    -- The authenticator's signature counter when it was used last; 0 for those that do not count.
    counter BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    last_used_ms BIGINT NOT NULL DEFAULT 0,
    -- When its counter was seen to go backwards; it is refused from then on. 0: never.
    suspect_ms BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX webauthn_credentials_user ON webauthn_credentials (user_id);

-- Registrations and logins in progress. Each has its own record, is good once, and only for the
-- device it was begun from.
CREATE TABLE webauthn_ceremonies (
    -- The hash of a token.
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- The login attempt that this is a step of; empty when there is none.
    attempt_id TEXT NOT NULL DEFAULT '',
    -- The challenge and what it is compared with, sealed.
    state TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX webauthn_ceremonies_device ON webauthn_ceremonies (device_id);
