-- What a login at the location has to prove: the level as a number of the wire's `Level` (1 mfa,
-- 2 phishing-resistant), and the factors that it may be proven with, JSON like every list.
ALTER TABLE locations ADD COLUMN required_level BIGINT NOT NULL DEFAULT 1;
ALTER TABLE locations ADD COLUMN factors TEXT NOT NULL
    DEFAULT '["password","totp","recovery-code","passkey"]';
