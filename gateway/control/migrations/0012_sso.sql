-- Accounts at OpenID Providers: issuer and subject are the identity, and nothing else is.
CREATE TABLE sso_identities (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The provider's name in the configuration, for people.
    provider TEXT NOT NULL,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject),
    -- One account per user and provider: unlinking needs no subject.
    UNIQUE (user_id, provider)
);

-- Groups as a provider's token named them at the last login, beside those in user_groups.
CREATE TABLE sso_groups (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    provider TEXT NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (user_id, provider, name)
);

-- Users that are at a provider's pages: good once, and only for the device that was sent there.
CREATE TABLE sso_visits (
    -- The hash of the `state` parameter.
    id TEXT PRIMARY KEY,
    provider TEXT NOT NULL,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    -- Nonce, PKCE verifier, redirect URI and the login's token, sealed.
    secrets TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX sso_visits_device ON sso_visits (device_id);

-- Logins that a provider vouched for, half-way or with their session: what a logout at the provider ends.
CREATE TABLE sso_logins (
    -- As in login_attempts.
    attempt_id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- The provider's own session; empty where it does not say.
    sid TEXT NOT NULL,
    -- Empty until there is one.
    session_id TEXT NOT NULL DEFAULT '',
    expires_ms BIGINT NOT NULL
);
CREATE INDEX sso_logins_identity ON sso_logins (issuer, subject);
CREATE INDEX sso_logins_session ON sso_logins (session_id);

-- Logout tokens that were obeyed: each is, once. What comes back from a visit that was begun before is void.
CREATE TABLE sso_logouts (
    issuer TEXT NOT NULL,
    -- The hash of `jti`.
    jti TEXT NOT NULL,
    -- Whose: all of a subject's where `sid` is empty.
    subject TEXT NOT NULL,
    sid TEXT NOT NULL,
    at_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    PRIMARY KEY (issuer, jti)
);
