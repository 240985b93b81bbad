-- The portal's certificate by ACME (RFC 8555): one account per CA, one certificate per name and CA.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY NOT NULL,
    -- Sealed.
    credentials TEXT NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE acme_certificates (
    name TEXT NOT NULL,
    directory TEXT NOT NULL,
    -- PEM, and its sealed key; empty until there is one.
    chain TEXT NOT NULL DEFAULT '',
    private_key TEXT NOT NULL DEFAULT '',
    -- When one may be ordered next: for a first one, for a renewal, after a failure.
    next_ms BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    -- Which process orders one, and until when that is not over.
    holder TEXT NOT NULL DEFAULT '',
    lease_until_ms BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (name, directory)
);

-- Answers to http-01 challenges, whichever process is asked.
CREATE TABLE acme_challenges (
    token TEXT PRIMARY KEY NOT NULL,
    answer TEXT NOT NULL,
    ends_ms BIGINT NOT NULL
);
