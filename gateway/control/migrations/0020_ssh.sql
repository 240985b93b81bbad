-- Sessions that live as long as an SSH connection. Whoever holds one renews its lease; a lease that has run out
-- ends the session.
CREATE TABLE ssh_sessions (
    session_id TEXT PRIMARY KEY REFERENCES sessions (id) ON DELETE CASCADE,
    -- Who renews it: new with each hold, so that one that was given up renews nothing.
    holder TEXT NOT NULL,
    lease_ms BIGINT NOT NULL
);
