-- What a login in progress has proven so far, by kind: something known, something possessed, and
-- WebAuthn with its user verified. Those that there are stand behind a right password.
ALTER TABLE login_attempts ADD COLUMN knowledge BIGINT NOT NULL DEFAULT 0;
ALTER TABLE login_attempts ADD COLUMN possession BIGINT NOT NULL DEFAULT 0;
ALTER TABLE login_attempts ADD COLUMN webauthn BIGINT NOT NULL DEFAULT 0;
UPDATE login_attempts SET knowledge = 1;
