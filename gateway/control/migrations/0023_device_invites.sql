-- Tokens by which a user's device makes its key known to a session-key location, once.
CREATE TABLE device_invites (
    -- Hash of the token.
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    location_id TEXT NOT NULL REFERENCES locations (id) ON DELETE CASCADE,
    expires_ms BIGINT NOT NULL
);
