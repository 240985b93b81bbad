-- How sessions begin: 'gate', through a tunnel that is up already, or 'session-key', before there is one.
ALTER TABLE locations ADD COLUMN mode TEXT NOT NULL DEFAULT 'gate';
-- Sealed. Of live sessions of session-key locations alone: it is wiped when the session ends.
ALTER TABLE sessions ADD COLUMN preshared_key TEXT;
-- Hash of what the device of a session asks for its session with, before and after the end.
ALTER TABLE sessions ADD COLUMN token TEXT;
CREATE UNIQUE INDEX sessions_by_token ON sessions (token);

-- Challenges that a device has answered rightly: each is good once. Kept until it would be too old anyway.
CREATE TABLE connect_spent (
    id TEXT PRIMARY KEY,
    expires_ms BIGINT NOT NULL
);
