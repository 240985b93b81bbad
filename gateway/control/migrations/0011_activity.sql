-- Whose account an audit record is about, resolved when it is written: names may belong to someone else later.
-- Records from before are in no user's list.
CREATE TABLE audit_about (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    number BIGINT NOT NULL,
    PRIMARY KEY (user_id, number)
);
CREATE INDEX audit_about_number ON audit_about (number);
