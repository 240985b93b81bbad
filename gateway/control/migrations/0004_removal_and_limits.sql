-- A gateway that is being removed keeps its row until it has let go of its peers, or until the last
-- deadline that it can hold has passed.
ALTER TABLE gateways ADD COLUMN removing_since_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE gateways ADD COLUMN open_until_ms BIGINT NOT NULL DEFAULT 0;
-- The WireGuard key of the first connection after an enrolment is the gateway's until the next one.
ALTER TABLE gateways ADD COLUMN key_pinned BIGINT NOT NULL DEFAULT 0;
UPDATE gateways SET key_pinned = 1 WHERE public_key IS NOT NULL;

-- The latest deadline ever granted at the location, also to devices that are gone since.
ALTER TABLE locations ADD COLUMN granted_until_ms BIGINT NOT NULL DEFAULT 0;
UPDATE locations SET granted_until_ms = COALESCE(
    (SELECT MAX(deadline_ms) FROM sessions WHERE sessions.location_id = locations.id), 0);

-- Logins with a name that is not the device's user's count against the device.
ALTER TABLE devices ADD COLUMN failures BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN delayed_until_ms BIGINT NOT NULL DEFAULT 0;
-- When a refused login was last written to the audit, and how many have been refused since.
ALTER TABLE devices ADD COLUMN refusals_noted_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN refusals_unnoted BIGINT NOT NULL DEFAULT 0;
