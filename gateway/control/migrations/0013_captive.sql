-- Whether plain HTTP of devices that have to log in is led to the portal.
ALTER TABLE locations ADD COLUMN captive BIGINT NOT NULL DEFAULT 1;
