-- A database as tokenkeeper 0.1.0 makes it (revision 0003), for the test that migrates one: the SQL of its three revisions.
-- Frozen: it is what the released version does, so never change it.

CREATE SCHEMA tokenkeeper;
CREATE TABLE tokenkeeper.alembic_version (
    version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
);
INSERT INTO tokenkeeper.alembic_version VALUES ('0003');

-- The internal schema `tokenkeeper`, granted to nobody. (The schema itself is made by shared/db/migrate.py.)

CREATE TABLE tokenkeeper.connections (
    hub_id               bigint PRIMARY KEY,
    status               text NOT NULL,
    status_since         timestamptz NOT NULL DEFAULT now(),
    status_reason        text,
    access_token         text,            -- in clear: SQL must be able to read it, and it dies within 30 minutes
    expires_at           timestamptz,     -- of the access token
    life                 real,            -- seconds that the newest access token lives in all
    scopes               text[] NOT NULL DEFAULT '{}',
    refreshed_at         timestamptz,     -- when the request that brought the access token was begun
    sealed_refresh_token text,
    installed_at         timestamptz,     -- the newest install's grant; null where it was only imported
    install_id           uuid,            -- that install
    hub_domain           text,
    installed_by         text,
    identify_due_at      timestamptz,     -- HubSpot has yet to be asked for domain and installer
    due_at               timestamptz,     -- when the next refresh is due; null: none is wanted
    not_before           timestamptz,     -- HubSpot's own Retry-After for this account
    failures             integer NOT NULL DEFAULT 0,
    last_error           text,
    refresh_requested    boolean NOT NULL DEFAULT false,  -- for the access token that is here now
    condemned            jsonb,           -- what both witnesses said of it, where the revocation brake holds it
    lease_until          timestamptz,     -- until then it is one worker's
    lease_no             bigint NOT NULL DEFAULT 0,       -- the number of that lease
    generation           bigint NOT NULL DEFAULT 0,       -- one more at each re-install and disconnect
    revocation_told      boolean NOT NULL DEFAULT false,  -- an alert said that it is revoked, and none that it is not
    created_at           timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT connections_status_known
        CHECK (status IN ('active', 'suspect', 'revoked', 'disconnected')),
    CONSTRAINT connections_condemned_is_suspect
        CHECK (condemned IS NULL OR status = 'suspect'),
    CONSTRAINT connections_token_expires
        CHECK ((access_token IS NULL) = (expires_at IS NULL)),
    CONSTRAINT connections_refreshable
        CHECK (sealed_refresh_token IS NOT NULL OR status = 'disconnected'),
    CONSTRAINT connections_revoked_has_no_token
        CHECK (access_token IS NULL OR status <> 'revoked')
) WITH (
    -- Every row is rewritten twice per life of a token: a claim (which touches no index) and a save.
    -- Room on the page lets the claim stay there; frequent small vacuums keep the due index short.
    fillfactor = 75,
    autovacuum_vacuum_scale_factor = 0.03,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_limit = 1000,
    autovacuum_analyze_scale_factor = 0.1
);

CREATE INDEX connections_due ON tokenkeeper.connections (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX connections_unidentified ON tokenkeeper.connections (identify_due_at)
    WHERE identify_due_at IS NOT NULL AND access_token IS NOT NULL;
CREATE INDEX connections_not_active ON tokenkeeper.connections (status, hub_id) WHERE status <> 'active';
CREATE INDEX connections_failing ON tokenkeeper.connections (hub_id) WHERE failures > 0;
CREATE INDEX connections_revocation_untold ON tokenkeeper.connections (hub_id)
    WHERE (status = 'revoked') <> revocation_told;
CREATE INDEX connections_unwiped ON tokenkeeper.connections (hub_id)
    WHERE status = 'disconnected' AND sealed_refresh_token IS NOT NULL;

CREATE TABLE tokenkeeper.history (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hub_id bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    event  text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    status text                           -- the new status, where the event changed it
);
CREATE INDEX history_of_hub ON tokenkeeper.history (hub_id, id);
-- For the revocation brake, which counts back over ten minutes.
CREATE INDEX history_of_changes ON tokenkeeper.history (at) WHERE status IS NOT NULL;
CREATE INDEX history_of_revocations ON tokenkeeper.history (at) WHERE event = 'revoked';

CREATE TABLE tokenkeeper.installs (
    install_id uuid PRIMARY KEY,
    hub_id     bigint NOT NULL,
    granted_at timestamptz NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What operators are told of, each change once: logged, and posted where a webhook is set.
CREATE TABLE tokenkeeper.alerts (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    number       bigint GENERATED ALWAYS AS IDENTITY,  -- those of a kind are posted in this order
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text NOT NULL,
    recovered    boolean NOT NULL DEFAULT false,
    subject      text NOT NULL DEFAULT '',
    detail       jsonb NOT NULL DEFAULT '{}',
    logged_at    timestamptz,
    due_at       timestamptz DEFAULT now(),  -- when it is posted (again); null: nothing more is done about it
    attempts     integer NOT NULL DEFAULT 0,
    lease_until  timestamptz,                -- until then one worker is posting it
    stands_for   integer NOT NULL DEFAULT 0, -- earlier ones of its kind that are not posted any more
    delivered_at timestamptz,
    CONSTRAINT alerts_kind_known
        CHECK (kind IN ('provider', 'connection_revoked', 'stale_connections', 'revocation_brake'))
);
CREATE INDEX alerts_pending ON tokenkeeper.alerts (kind, number) WHERE due_at IS NOT NULL;
CREATE INDEX alerts_delivered ON tokenkeeper.alerts (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX alerts_of_kind ON tokenkeeper.alerts (kind, at);

-- How HubSpot as a whole is doing: exactly one row.
CREATE TABLE tokenkeeper.provider (
    one             boolean PRIMARY KEY DEFAULT true CONSTRAINT provider_is_one CHECK (one),
    condition       text NOT NULL DEFAULT 'ok',
    since           timestamptz DEFAULT now(),
    reason          text,
    silent          integer NOT NULL DEFAULT 0,
    refused         integer NOT NULL DEFAULT 0,
    paused_until    timestamptz,
    rate            double precision,     -- refreshes a second, all workers together; null: no limit
    allowance       double precision NOT NULL DEFAULT 1,  -- refreshes that may begin at once
    refilled_at     timestamptz NOT NULL DEFAULT now(),
    swept_at        timestamptz,
    last_success_at timestamptz,
    brake_since     timestamptz,          -- the revocation brake is on since then; null: it is off
    brake_reset_at  timestamptz,          -- revocations before it do not count: an operator dismissed them
    CONSTRAINT provider_condition_known
        CHECK (condition IN ('ok', 'unavailable', 'throttled', 'app_rejected'))
);
INSERT INTO tokenkeeper.provider DEFAULT VALUES;

-- How many connections there are, so that nobody has to count a million of them: exactly one row.
CREATE TABLE tokenkeeper.totals (
    one         boolean PRIMARY KEY DEFAULT true CONSTRAINT totals_is_one CHECK (one),
    connections bigint NOT NULL DEFAULT 0
);
INSERT INTO tokenkeeper.totals DEFAULT VALUES;

CREATE FUNCTION tokenkeeper.count_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    more bigint := (SELECT count(*) FROM changed);
BEGIN
    IF more > 0 THEN
        UPDATE tokenkeeper.totals SET connections = connections + more;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_in AFTER INSERT ON tokenkeeper.connections
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tokenkeeper.count_in();

CREATE FUNCTION tokenkeeper.count_out() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE tokenkeeper.totals SET connections = connections - (SELECT count(*) FROM changed);
    RETURN NULL;
END
$$;
CREATE TRIGGER count_out AFTER DELETE ON tokenkeeper.connections
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION tokenkeeper.count_out();

CREATE FUNCTION tokenkeeper.tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('hubspot_connections', json_build_object('hub_id', NEW.hub_id, 'event', NEW.event)::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER tell AFTER INSERT ON tokenkeeper.history
    FOR EACH ROW WHEN (NEW.status IS NOT NULL) EXECUTE FUNCTION tokenkeeper.tell();

REVOKE ALL ON SCHEMA tokenkeeper FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tokenkeeper FROM PUBLIC;

-- The schema `hubspot`: all that downstream jobs may read, and the one thing that they may ask for.

-- A role belongs to the whole cluster: another database of ours may have made it, or be making it right now.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'hubspot_reader') THEN
        CREATE ROLE hubspot_reader NOLOGIN;
    END IF;
EXCEPTION
    WHEN duplicate_object OR unique_violation THEN
        NULL;
    WHEN insufficient_privilege THEN
        RAISE EXCEPTION 'the role hubspot_reader is missing' USING ERRCODE = 'TK001';
END
$$;

CREATE SCHEMA hubspot;

-- One row per connection whose token works at this very moment: clock_timestamp() moves on inside a transaction.
-- A barrier, so that no function in a reader's WHERE gets to see what the view leaves out.
-- expires_in counts from the statement's start: a volatile clock among the columns would be read, and keep the view from
-- being part of the query around it, also where nobody asks for that column.
CREATE VIEW hubspot.tokens WITH (security_barrier) AS
SELECT hub_id,
       access_token,
       expires_at,
       greatest(0, floor(date_part('epoch', expires_at - statement_timestamp())))::integer AS expires_in,
       scopes,
       refreshed_at
  FROM tokenkeeper.connections
 WHERE status IN ('active', 'suspect')
   AND access_token IS NOT NULL
   AND expires_at > clock_timestamp();

CREATE VIEW hubspot.connections WITH (security_barrier) AS
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

CREATE VIEW hubspot.history WITH (security_barrier) AS
SELECT hub_id, at, event, detail
  FROM tokenkeeper.history;

-- For a job that got a 401. The row is locked, so that of several askers one is first.
CREATE FUNCTION hubspot.request_refresh(hub_id bigint, access_token text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found_row tokenkeeper.connections;
    at_once   timestamptz;
BEGIN
    SELECT c.* INTO found_row FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 FOR NO KEY UPDATE;
    IF NOT FOUND OR found_row.status NOT IN ('active', 'suspect') THEN
        RETURN false;
    END IF;
    -- Another token is served already: the asker holds an old one.
    IF $2 <> found_row.access_token AND found_row.expires_at > clock_timestamp() THEN
        RETURN false;
    END IF;
    -- A refresh is in flight, or was until its worker died: due when the lease ends, and nothing is added.
    IF found_row.lease_until > clock_timestamp() THEN
        UPDATE tokenkeeper.connections AS c
           SET due_at = least(c.due_at, clock_timestamp()), refresh_requested = true
         WHERE c.hub_id = $1 AND NOT (c.refresh_requested AND c.due_at <= clock_timestamp());
        RETURN true;
    END IF;
    IF found_row.refresh_requested THEN
        RETURN false;
    END IF;
    at_once := greatest(clock_timestamp(), found_row.not_before);
    UPDATE tokenkeeper.connections AS c
       SET due_at = least(c.due_at, at_once), refresh_requested = true
     WHERE c.hub_id = $1;
    RETURN true;
END
$$;

REVOKE ALL ON SCHEMA hubspot FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hubspot FROM PUBLIC;
GRANT USAGE ON SCHEMA hubspot TO hubspot_reader;
GRANT SELECT ON hubspot.tokens, hubspot.connections, hubspot.history TO hubspot_reader;
GRANT EXECUTE ON FUNCTION hubspot.request_refresh(bigint, text) TO hubspot_reader;

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

-- For processes that may not do everything: shared/db/privileges.py says what each may.

-- A caller's search_path decides nothing: pg_temp is named, or it would be looked into first.
ALTER FUNCTION tokenkeeper.count_in() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tokenkeeper.count_out() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tokenkeeper.tell() SET search_path = pg_catalog, pg_temp;

-- Something that TOKEN_KEYS sealed and that tells nobody anything: who may not read a refresh token holds its keys
-- against this. At most one row.
CREATE TABLE tokenkeeper.key_check (
    one    boolean PRIMARY KEY DEFAULT true CONSTRAINT key_check_is_one CHECK (one),
    sealed text NOT NULL
);

-- All that web learns of a refresh token: whether there is one. Volatile, so that a row which was waited for is seen as
-- it is now.
CREATE FUNCTION tokenkeeper.holds_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.sealed_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;
REVOKE ALL ON FUNCTION tokenkeeper.holds_refresh_token(bigint) FROM PUBLIC;
