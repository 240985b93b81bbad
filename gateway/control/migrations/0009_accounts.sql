-- What an account is for: `user` or `admin`.
ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'user';
-- Since when the account has had factors to log in with. 0: it was invited and nobody has enrolled.
ALTER TABLE users ADD COLUMN enrolled_ms BIGINT NOT NULL DEFAULT 0;
UPDATE users SET enrolled_ms = created_ms;
-- The last time that an administrator voided factors because one was lost, why, and the login at which
-- the user was told. 0: never.
ALTER TABLE users ADD COLUMN reset_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN reset_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE users ADD COLUMN reset_told_ms BIGINT NOT NULL DEFAULT 0;

-- Links by which an account enrols. An account has one at most: a newer one voids the older.
CREATE TABLE enrolment_links (
    -- The hash of a token.
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- Good only until some account has enrolled.
    first_admin BIGINT NOT NULL DEFAULT 0,
    -- Whatever was tried with it, right or wrong.
    tries BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);

-- Enrolments in progress: any number by one link, each a record of its own. They end with their link.
CREATE TABLE enrolments (
    -- The hash of a token.
    id TEXT PRIMARY KEY,
    link_id TEXT NOT NULL REFERENCES enrolment_links (id) ON DELETE CASCADE,
    -- The account's to be: argon2id, and sealed. Until the end the account keeps what it has.
    password TEXT NOT NULL DEFAULT '',
    totp_secret TEXT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX enrolments_link ON enrolments (link_id);
