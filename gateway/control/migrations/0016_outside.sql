-- The hash of a cookie of the browser that was sent to a provider. Visits from before this have none: they
-- are begun again.
ALTER TABLE sso_visits ADD COLUMN browser TEXT NOT NULL DEFAULT '';
-- When the provider's word on the user's groups is over. Those told of before this end with the sessions
-- there are.
ALTER TABLE sso_groups ADD COLUMN expires_ms BIGINT NOT NULL DEFAULT 0;
UPDATE sso_groups SET expires_ms = COALESCE(
    (SELECT MAX(s.deadline_ms) FROM sessions s WHERE s.user_id = sso_groups.user_id AND s.state = 'live'), 0);
CREATE INDEX sso_groups_expires ON sso_groups (expires_ms);
