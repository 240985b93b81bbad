-- How sessions begin: 'gate', through a tunnel that is up already, or 'session-key', before there is one.
ALTER TABLE locations ADD COLUMN mode TEXT NOT NULL DEFAULT 'gate';
-- Sealed. Of live sessions of session-key locations alone: it is wiped when the session ends.
ALTER TABLE sessions ADD COLUMN preshared_key TEXT;
