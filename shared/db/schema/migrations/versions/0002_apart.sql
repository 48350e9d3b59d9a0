-- Whose account a connection is moves out of the row that every refresh rewrites; counts of refreshes come beside it.

-- From here on nobody writes to it, and readers go on until the columns are dropped.
LOCK TABLE tokenkeeper.connections IN EXCLUSIVE MODE;

-- One row for each connection, written when it is installed and when it is identified, and by no refresh: so it can be
-- sorted and searched, at a cost that no refresh pays.
CREATE TABLE tokenkeeper.accounts (
    hub_id       bigint PRIMARY KEY,
    hub_domain   text,
    installed_by text,
    -- By the domain, and those without one last. No name holds a tab or a line's end: HubSpot's client sees to that.
    -- Cut, so that an index can always hold it together with what is sought.
    listed       text COLLATE "C" NOT NULL
                 GENERATED ALWAYS AS (coalesce(E'\t' || left(lower(hub_domain), 80), E'\n')) STORED,
    sought       text NOT NULL
                 GENERATED ALWAYS AS (coalesce(lower(hub_domain), '') || E'\n' || coalesce(lower(installed_by), '')) STORED
);
INSERT INTO tokenkeeper.accounts (hub_id, hub_domain, installed_by)
SELECT hub_id, hub_domain, installed_by FROM tokenkeeper.connections ORDER BY hub_id;
CREATE INDEX accounts_listed ON tokenkeeper.accounts (listed, hub_id) INCLUDE (sought);
ANALYZE tokenkeeper.accounts;

-- With the hub, so that a page of a list can go on in the middle of thousands that fall due, or failed, alike.
CREATE INDEX connections_due_new ON tokenkeeper.connections (due_at, hub_id) WHERE due_at IS NOT NULL;
CREATE INDEX connections_failing_new ON tokenkeeper.connections (failures, hub_id) WHERE failures > 0;

CREATE OR REPLACE FUNCTION tokenkeeper.count_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    more bigint := (SELECT count(*) FROM changed);
BEGIN
    IF more > 0 THEN
        UPDATE tokenkeeper.totals SET connections = connections + more;
        INSERT INTO tokenkeeper.accounts (hub_id) SELECT hub_id FROM changed ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION tokenkeeper.count_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tokenkeeper.totals SET connections = connections - (SELECT count(*) FROM changed);
    DELETE FROM tokenkeeper.accounts AS a USING changed WHERE a.hub_id = changed.hub_id;
    RETURN NULL;
END
$$;

-- What refreshes came to, minute by minute; the sweep takes away what is older than three days.
CREATE TABLE tokenkeeper.minutes (
    minute    timestamptz PRIMARY KEY,
    refreshed bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0   -- attempts that brought no token
) WITH (fillfactor = 50);

-- The same since the database was made: attempts by outcome, and how late a refresh was, by upper bound in seconds.
CREATE TABLE tokenkeeper.tally (
    kind  text NOT NULL,
    name  text NOT NULL,
    total double precision NOT NULL,
    PRIMARY KEY (kind, name),
    CONSTRAINT tally_kind_known CHECK (kind IN ('attempts', 'lateness', 'lateness_seconds'))
) WITH (fillfactor = 50);

-- What grows without end is pruned by these.
CREATE INDEX history_of_failures ON tokenkeeper.history (at)
    WHERE status IS NULL AND event IN ('refresh_failed', 'recovered');
CREATE INDEX installs_stored ON tokenkeeper.installs (stored_at);
CREATE TABLE tokenkeeper.pruned (
    one boolean PRIMARY KEY DEFAULT true CONSTRAINT pruned_is_one CHECK (one),
    at  timestamptz
);
INSERT INTO tokenkeeper.pruned DEFAULT VALUES;

-- Now readers wait, and shortly: first at the view and then at the table, which is the way they go themselves.
CREATE OR REPLACE VIEW hubspot.connections WITH (security_barrier) AS
SELECT c.hub_id,
       c.status,
       a.hub_domain,
       a.installed_by,
       c.scopes,
       c.installed_at,
       c.expires_at,
       CASE WHEN c.status IN ('active', 'suspect') THEN c.due_at END AS next_refresh_at,
       c.failures,
       c.last_error,
       c.status_reason,
       c.status_since
  FROM tokenkeeper.connections AS c
  LEFT JOIN tokenkeeper.accounts AS a ON a.hub_id = c.hub_id;

ALTER TABLE tokenkeeper.connections DROP COLUMN hub_domain, DROP COLUMN installed_by;
DROP INDEX tokenkeeper.connections_due, tokenkeeper.connections_failing;
ALTER INDEX tokenkeeper.connections_due_new RENAME TO connections_due;
ALTER INDEX tokenkeeper.connections_failing_new RENAME TO connections_failing;
