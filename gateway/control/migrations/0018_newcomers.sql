-- Where the first device of who enrols by the link may be added, by id. Empty: nowhere.
ALTER TABLE enrolment_links ADD COLUMN location_id TEXT NOT NULL DEFAULT '';

-- Who has just enrolled, and may add a first passkey and a first device from the page that says so.
CREATE TABLE newcomers (
    -- The hash of a token.
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    -- Where a device may be added, by id. Empty: nowhere, or it is there.
    location_id TEXT NOT NULL DEFAULT '',
    -- The challenge that waits for a passkey, sealed. Empty: none does.
    ceremony TEXT NOT NULL DEFAULT '',
    expires_ms BIGINT NOT NULL
);
