-- Who writes holds the lock of this one row until its commit: writers come one after the other, changes are
-- numbered without gaps in the order in which they are seen, and a program that is older than the schema is stopped.
CREATE TABLE schema_version (version integer NOT NULL);
INSERT INTO schema_version VALUES (0);

-- Keys and values are those of engine/rows.rs. The views below show them to people.
CREATE TABLE meta (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE domains (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE addresses (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE deliveries (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE accounts (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE logins (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE uses (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE backends (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE moves (key bytea PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE changes (key bytea PRIMARY KEY, value bytea NOT NULL);

-- The keys that every server on this database works with: as the files of a data folder, and since when they are so.
CREATE TABLE keys (
    name text PRIMARY KEY,
    octets bytea NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION number_of(octets bytea) RETURNS bigint IMMUTABLE STRICT LANGUAGE sql AS
    $$ SELECT ('x' || encode(substring(octets FROM 1 FOR 8), 'hex'))::bit(64)::bigint $$;
CREATE FUNCTION text_of(octets bytea) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS
    $$ SELECT convert_from(octets, 'UTF8') $$;

CREATE VIEW shown_domains AS
    SELECT text_of(key) AS name, text_of(value)::jsonb ->> 'alias_of' AS alias_of FROM domains;
CREATE VIEW shown_addresses AS
    SELECT text_of(substring(key FROM position('\x00'::bytea IN key) + 1)) || '@'
        || text_of(substring(key FROM 1 FOR position('\x00'::bytea IN key) - 1)) AS address,
        text_of(value)::jsonb AS targets
    FROM addresses;
CREATE VIEW shown_accounts AS
    SELECT number_of(key) AS account, one ->> 'login_name' AS login_name, one ->> 'status' AS status,
        one #>> '{home,backend}' AS backend, one #>> '{home,volume}' AS volume,
        (one #>> '{home,epoch}')::bigint AS epoch, one - 'credentials' AS account_row
    FROM (SELECT key, text_of(value)::jsonb AS one FROM accounts) AS every;
CREATE VIEW shown_backends AS
    SELECT text_of(key) AS name, text_of(value)::jsonb AS backend FROM backends;
CREATE VIEW shown_moves AS
    SELECT number_of(key) AS account, text_of(value)::jsonb AS move FROM moves;
CREATE VIEW shown_changes AS
    SELECT number_of(key) AS number, one ->> 'kind' AS kind, one ->> 'key' AS key,
        to_timestamp((one ->> 'at_ms')::bigint / 1000.0) AS at
    FROM (SELECT key, text_of(value)::jsonb AS one FROM changes) AS every;
