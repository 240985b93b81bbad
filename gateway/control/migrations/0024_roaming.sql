-- Whether a session goes on when its device is heard from another network.
ALTER TABLE locations ADD COLUMN roaming BIGINT NOT NULL DEFAULT 1;
-- Where the device of a session that may not move was heard from first: an address, or the first of an IPv6 /64. Empty
-- until a gateway has told.
ALTER TABLE sessions ADD COLUMN network TEXT NOT NULL DEFAULT '';
