-- One text for SQLite and PostgreSQL: BIGINT for numbers, flags and times (milliseconds since the
-- Unix epoch), TEXT for everything else; keys and sealed secrets are base64.

-- The single row that every writer updates first: it numbers the changes and lets writers queue.
CREATE TABLE meta (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL,
    audit BIGINT NOT NULL,
    store_id TEXT NOT NULL,
    -- Tombstones up to this revision are gone: a gateway that knows less needs a snapshot.
    pruned BIGINT NOT NULL,
    ca_certificate TEXT,
    ca_key TEXT
);
INSERT INTO meta (id, revision, audit, store_id, pruned) VALUES (1, 0, 0, '', 0);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    totp_secret TEXT NOT NULL,
    -- The last time step whose code was accepted: a code is good once (RFC 6238, 5.2).
    totp_last_step BIGINT NOT NULL DEFAULT 0,
    disabled BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    delayed_until_ms BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL
);

CREATE TABLE user_groups (
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    PRIMARY KEY (user_id, name)
);

CREATE TABLE locations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    pools TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    listen_port BIGINT NOT NULL,
    mtu BIGINT NOT NULL,
    routes TEXT NOT NULL,
    dns TEXT NOT NULL,
    portal_port BIGINT NOT NULL,
    portals TEXT NOT NULL,
    session_lifetime_ms BIGINT NOT NULL,
    idle_timeout_ms BIGINT NOT NULL,
    persistent_keepalive_s BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE devices (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    location_id TEXT NOT NULL REFERENCES locations (id),
    public_key TEXT NOT NULL UNIQUE,
    preshared_key TEXT,
    revision BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    endpoint TEXT NOT NULL DEFAULT '',
    last_handshake_ms BIGINT NOT NULL DEFAULT 0,
    rx_bytes BIGINT NOT NULL DEFAULT 0,
    tx_bytes BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX devices_changed ON devices (location_id, revision);
CREATE INDEX devices_user ON devices (user_id);

-- Pools of different locations do not overlap: an address names one device of the whole store.
CREATE TABLE device_addresses (
    address TEXT PRIMARY KEY,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    location_id TEXT NOT NULL REFERENCES locations (id)
);
CREATE INDEX device_addresses_device ON device_addresses (device_id);
CREATE INDEX device_addresses_location ON device_addresses (location_id);

-- What a delta has to remove.
CREATE TABLE tombstones (
    public_key TEXT NOT NULL,
    location_id TEXT NOT NULL,
    revision BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (location_id, public_key)
);
CREATE INDEX tombstones_changed ON tombstones (location_id, revision);

CREATE TABLE gateways (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    location_id TEXT NOT NULL REFERENCES locations (id),
    public_key TEXT,
    certificate TEXT,
    token TEXT UNIQUE,
    token_expires_ms BIGINT NOT NULL DEFAULT 0,
    applied_revision BIGINT NOT NULL DEFAULT 0,
    last_seen_ms BIGINT NOT NULL DEFAULT 0,
    created_ms BIGINT NOT NULL
);
CREATE INDEX gateways_location ON gateways (location_id);

CREATE TABLE gateway_reasons (
    gateway_id TEXT NOT NULL REFERENCES gateways (id) ON DELETE CASCADE,
    reason BIGINT NOT NULL,
    direction BIGINT NOT NULL,
    packets BIGINT NOT NULL,
    PRIMARY KEY (gateway_id, reason, direction)
);

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    location_id TEXT NOT NULL REFERENCES locations (id),
    level BIGINT NOT NULL,
    state TEXT NOT NULL,
    authenticated_at_ms BIGINT NOT NULL,
    deadline_ms BIGINT NOT NULL,
    idle_timeout_ms BIGINT NOT NULL,
    last_activity_ms BIGINT NOT NULL,
    ended_ms BIGINT NOT NULL DEFAULT 0,
    ended_by TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX sessions_live_device ON sessions (device_id) WHERE state = 'live';
CREATE INDEX sessions_live_deadline ON sessions (deadline_ms) WHERE state = 'live';
CREATE INDEX sessions_user ON sessions (user_id);
CREATE INDEX sessions_location ON sessions (location_id);

-- Logins whose password was right and whose code is awaited.
CREATE TABLE login_attempts (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    device_id TEXT NOT NULL REFERENCES devices (id) ON DELETE CASCADE,
    expires_ms BIGINT NOT NULL
);

CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    at_ms BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);
