-- When password and authenticator were set. 0: there is none, or it was set before this version.
ALTER TABLE users ADD COLUMN password_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN totp_ms BIGINT NOT NULL DEFAULT 0;
-- When nothing is left any more of what the user's own changes have taken of their share.
ALTER TABLE users ADD COLUMN changes_free_ms BIGINT NOT NULL DEFAULT 0;
-- The highest level that the provider has vouched for: 0 none, 1 mfa, 2 phishing-resistant (see Level).
ALTER TABLE sso_identities ADD COLUMN level BIGINT NOT NULL DEFAULT 0;

-- Authenticators to be, one per account. Until a code of it is given the account keeps the one it has.
CREATE TABLE totp_setups (
    user_id TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    -- Only the session that asked for it sees it and confirms it.
    session_id TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- Sealed.
    totp_secret TEXT NOT NULL,
    begun_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
