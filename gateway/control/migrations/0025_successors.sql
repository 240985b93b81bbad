-- The session whose place this one takes; empty once a gateway has said that its kernel holds this one. Until then the
-- former one keeps its pre-shared key, and is put back if none does.
ALTER TABLE sessions ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
-- Nobody waits for that any more from then on.
ALTER TABLE sessions ADD COLUMN settles_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX sessions_unsettled ON sessions (settles_ms) WHERE replaces <> '';
