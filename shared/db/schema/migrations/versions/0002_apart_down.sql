-- Back to 0001: whose account it is returns into the connection's row, and the counts are gone.

ALTER TABLE tokenkeeper.connections ADD COLUMN hub_domain text, ADD COLUMN installed_by text;
UPDATE tokenkeeper.connections AS c SET hub_domain = a.hub_domain, installed_by = a.installed_by
  FROM tokenkeeper.accounts AS a WHERE a.hub_id = c.hub_id;

CREATE OR REPLACE VIEW hubspot.connections WITH (security_barrier) AS
SELECT hub_id,
       status,
       hub_domain,
       installed_by,
       scopes,
       installed_at,
       expires_at,
       CASE WHEN status IN ('active', 'suspect') THEN due_at END AS next_refresh_at,
       failures,
       last_error,
       status_reason,
       status_since
  FROM tokenkeeper.connections;

CREATE OR REPLACE FUNCTION tokenkeeper.count_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    more bigint := (SELECT count(*) FROM changed);
BEGIN
    IF more > 0 THEN
        UPDATE tokenkeeper.totals SET connections = connections + more;
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tokenkeeper.count_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tokenkeeper.totals SET connections = connections - (SELECT count(*) FROM changed);
    RETURN NULL;
END
$$;

DROP INDEX tokenkeeper.connections_due;
CREATE INDEX connections_due ON tokenkeeper.connections (due_at) WHERE due_at IS NOT NULL;
DROP INDEX tokenkeeper.connections_failing;
CREATE INDEX connections_failing ON tokenkeeper.connections (hub_id) WHERE failures > 0;
DROP INDEX tokenkeeper.history_of_failures, tokenkeeper.installs_stored;
DROP TABLE tokenkeeper.accounts, tokenkeeper.minutes, tokenkeeper.tally, tokenkeeper.pruned;
