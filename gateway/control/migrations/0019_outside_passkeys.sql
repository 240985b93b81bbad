-- The challenge that waits for a passkey as the second factor, sealed. Empty: none does.
ALTER TABLE outside_attempts ADD COLUMN ceremony TEXT NOT NULL DEFAULT '';
