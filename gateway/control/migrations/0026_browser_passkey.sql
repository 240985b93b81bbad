-- Where a program waits on the machine of the browser that approves, as JSON; empty: a phone is asked.
ALTER TABLE approvals ADD COLUMN back_to TEXT NOT NULL DEFAULT '';
-- Hash of what that browser brings it, once it has approved.
ALTER TABLE approvals ADD COLUMN code TEXT NOT NULL DEFAULT '';
