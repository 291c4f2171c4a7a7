-- The entries in LDAP that accounts are of.
CREATE TABLE links (key bytea PRIMARY KEY, value bytea NOT NULL);

CREATE VIEW shown_links AS
    SELECT number_of(key) AS account, one ->> 'dn' AS dn, one ->> 'id' AS id, one -> 'addresses' AS addresses
    FROM (SELECT key, text_of(value)::jsonb AS one FROM links) AS every;
