-- Every policy that was ever applied; the newest is live. Without any, the gate holds: two factors
-- for everything, and nothing unsolicited.
CREATE TABLE policies (
    number BIGINT PRIMARY KEY,
    source TEXT NOT NULL,
    -- SHA-256 of the source, hexadecimal.
    digest TEXT NOT NULL,
    rules BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    applied_ms BIGINT NOT NULL,
    applied_by TEXT NOT NULL
);

-- The last revision that changed the policy, or whom its rules mean: users and their groups.
ALTER TABLE meta ADD COLUMN policy_revision BIGINT NOT NULL DEFAULT 0;
