-- What a user calls a device of their own; empty for those that an administrator named.
ALTER TABLE devices ADD COLUMN label TEXT NOT NULL DEFAULT '';
-- When a temporary device is removed; 0 for one that stays.
ALTER TABLE devices ADD COLUMN ends_ms BIGINT NOT NULL DEFAULT 0;
CREATE INDEX devices_ending ON devices (ends_ms) WHERE ends_ms > 0;
