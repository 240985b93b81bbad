-- Whether senders of dropped openers are told at once.
ALTER TABLE locations ADD COLUMN answer_drops BIGINT NOT NULL DEFAULT 1;
