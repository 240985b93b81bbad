-- The hash of a cookie of the browser that was sent to a provider. Visits from before this have none: they
-- are begun again.
ALTER TABLE sso_visits ADD COLUMN browser TEXT NOT NULL DEFAULT '';
-- When the provider's word on the user's groups is over. Those told of before this end with the sessions
-- there are.
ALTER TABLE sso_groups ADD COLUMN expires_ms BIGINT NOT NULL DEFAULT 0;
UPDATE sso_groups SET expires_ms = COALESCE(
    (SELECT MAX(s.deadline_ms) FROM sessions s WHERE s.user_id = sso_groups.user_id AND s.state = 'live'), 0);
CREATE INDEX sso_groups_expires ON sso_groups (expires_ms);

-- Sign-ins from outside of the tunnel, half-way: the password was right. Which device it is for is chosen
-- last.
CREATE TABLE outside_attempts (
    -- The hash of a cookie.
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The factor after the password, once it was right: `totp` or `recovery-code`.
    second TEXT NOT NULL DEFAULT '',
    expires_ms BIGINT NOT NULL
);
CREATE INDEX outside_attempts_user ON outside_attempts (user_id);

-- Browsers outside of the tunnel that have opened a session, which is a device's like any other. What they
-- may do ends with it.
CREATE TABLE outside_browsers (
    -- The hash of a cookie.
    id TEXT PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE REFERENCES sessions (id) ON DELETE CASCADE
);

-- Wrong attempts from outside, apart from those through the tunnel, which they leave alone. Kept for names
-- that are nobody's just as for those of accounts.
CREATE TABLE outside_limits (
    -- The hash of what is counted.
    id TEXT PRIMARY KEY,
    failures BIGINT NOT NULL,
    delayed_until_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
