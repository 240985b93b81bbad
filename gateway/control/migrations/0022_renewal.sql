-- Mark of the pre-shared key that a live session had before its present one.
ALTER TABLE sessions ADD COLUMN renews TEXT;
-- The session that this login is to renew; empty where it opens one of its own.
ALTER TABLE login_attempts ADD COLUMN renews TEXT NOT NULL DEFAULT '';
