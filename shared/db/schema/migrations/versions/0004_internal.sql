-- The internal schema `tokenkeeper`: only the roles of shared/db/schema/privileges.py may use it.
-- shared/db/schema/migrate.py creates the schema itself, for Alembic's table of revisions.

-- One row per connected HubSpot account (hub): its tokens, its schedule and its lease.
CREATE TABLE tokenkeeper.connections (
    hub_id                  bigint PRIMARY KEY,
    status                  text NOT NULL,         -- one of the CHECK below
    status_since            timestamptz NOT NULL DEFAULT now(),
    status_reason           text,                  -- for people; null: the status needs no explanation
    access_token            text,                  -- in clear, because SQL must be able to read it; null: none yet, or ended
    expires_at              timestamptz,           -- of the access token; null: there is none
    lifetime_seconds        real,                  -- of the newest access token, from issue to expiry; null before the first
    scopes                  text[] NOT NULL DEFAULT '{}',
    refreshed_at            timestamptz,           -- start of the request that brought the newest tokens; null before the first
    encrypted_refresh_token text,                  -- null: disconnected, and HubSpot's answer to that is known
    installed_at            timestamptz,           -- grant of the newest install; null: the connection was only imported
    install_id              uuid,                  -- that install; null: only imported
    account_info_due_at     timestamptz,           -- when to ask HubSpot for domain and installer; null: known already
    due_at                  timestamptz,           -- when the next refresh is due; null: none is wanted
    retry_not_before        timestamptz,           -- HubSpot's Retry-After for this account; null: it sent none
    failures                integer NOT NULL DEFAULT 0,      -- consecutive refreshes without a new token
    last_error              text,                  -- of the newest of those failures; null: none
    refresh_requested       boolean NOT NULL DEFAULT false,  -- a job or an operator asked to replace this access token
    pending_revocation      jsonb,                 -- detail of a revocation that the revocation brake holds; null: none
    lease_until             timestamptz,           -- until then one worker alone refreshes this row; null: no lease
    lease_number            bigint NOT NULL DEFAULT 0,       -- of the newest lease: fences out results of older ones
    -- Grows with each re-install and disconnect, and fences as well. Both numbers are microseconds of PostgreSQL's clock, so
    -- that after a failover none is given out a second time.
    generation              bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
    revocation_alerted      boolean NOT NULL DEFAULT false,  -- the newest alert about this connection says it is revoked
    created_at              timestamptz NOT NULL DEFAULT now(),
    requested_refresh_at    timestamptz,           -- newest refresh that was requested and brought a token; null: none
    CONSTRAINT connections_status_known
        CHECK (status IN ('active', 'suspect', 'revoked', 'disconnected')),
    CONSTRAINT connections_pending_revocation_is_suspect
        CHECK (pending_revocation IS NULL OR status = 'suspect'),
    CONSTRAINT connections_token_expires
        CHECK ((access_token IS NULL) = (expires_at IS NULL)),
    CONSTRAINT connections_refreshable
        CHECK (encrypted_refresh_token IS NOT NULL OR status = 'disconnected'),
    CONSTRAINT connections_revoked_has_no_token
        CHECK (access_token IS NULL OR status <> 'revoked')
) WITH (
    -- Every row is rewritten twice per lifetime of a token: by a claim, which changes no indexed column, and by a save.
    -- Free space in the page lets the claim be a heap-only update; frequent small vacuums keep connections_due short.
    fillfactor = 75,
    autovacuum_vacuum_scale_factor = 0.03,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_limit = 1000,
    autovacuum_analyze_scale_factor = 0.1
);

-- Claims, and the list by due time: with hub_id, so that a page can start between rows that are due at the same time.
CREATE INDEX connections_due ON tokenkeeper.connections (due_at, hub_id) WHERE due_at IS NOT NULL;
CREATE INDEX connections_account_info_due ON tokenkeeper.connections (account_info_due_at)
    WHERE account_info_due_at IS NOT NULL AND access_token IS NOT NULL;
CREATE INDEX connections_not_active ON tokenkeeper.connections (status, hub_id) WHERE status <> 'active';
CREATE INDEX connections_failing ON tokenkeeper.connections (failures, hub_id) WHERE failures > 0;
-- Connections that need an alert: revoked without one, or no longer revoked after one.
CREATE INDEX connections_revocation_alert_due ON tokenkeeper.connections (hub_id)
    WHERE (status = 'revoked') <> revocation_alerted;
-- Disconnects that HubSpot did not answer yet.
CREATE INDEX connections_disconnect_unfinished ON tokenkeeper.connections (hub_id)
    WHERE status = 'disconnected' AND encrypted_refresh_token IS NOT NULL;

-- Account information of each connection, apart from the row that every refresh rewrites: it can be sorted and searched
-- at no cost to a refresh (docs/adr/0012). Written at an install and when HubSpot answers what account it is.
CREATE TABLE tokenkeeper.accounts (
    hub_id       bigint PRIMARY KEY,
    hub_domain   text,          -- null: not known yet
    installed_by text,          -- e-mail address of the installing user; null: not known yet
    -- The domain, with those without one last: a domain contains neither tab nor newline (shared/hubspot ensures it).
    -- 80 characters, so that an index entry always has room for the search text.
    sort_key     text COLLATE "C" NOT NULL
                 GENERATED ALWAYS AS (coalesce(E'\t' || left(lower(hub_domain), 80), E'\n')) STORED,
    search_text  text NOT NULL
                 GENERATED ALWAYS AS (coalesce(lower(hub_domain), '') || E'\n' || coalesce(lower(installed_by), '')) STORED
);
CREATE INDEX accounts_sorted ON tokenkeeper.accounts (sort_key, hub_id) INCLUDE (search_text);

-- What happened to each connection. Changes of status are kept for ever, failures are pruned.
CREATE TABLE tokenkeeper.history (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hub_id bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    event  text NOT NULL,
    detail jsonb NOT NULL DEFAULT '{}',
    status text                 -- the new status; null: the event did not change it
);
CREATE INDEX history_of_hub ON tokenkeeper.history (hub_id, id);
-- The revocation brake counts the last ten minutes.
CREATE INDEX history_of_changes ON tokenkeeper.history (at) WHERE status IS NOT NULL;
CREATE INDEX history_of_revocations ON tokenkeeper.history (at) WHERE event = 'revoked';
-- Pruning.
CREATE INDEX history_of_failures ON tokenkeeper.history (at)
    WHERE status IS NULL AND event IN ('refresh_failed', 'recovered');

-- Installs already stored, so that the same install delivered twice is stored once.
CREATE TABLE tokenkeeper.installs (
    install_id uuid PRIMARY KEY,
    hub_id     bigint NOT NULL,
    granted_at timestamptz NOT NULL,
    stored_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX installs_stored ON tokenkeeper.installs (stored_at);  -- pruning

-- The outbox of alerts to operators (docs/adr/0011): each change once; logged, and posted where a webhook is set.
CREATE TABLE tokenkeeper.alerts (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    number           bigint GENERATED ALWAYS AS IDENTITY,  -- alerts of one kind are posted in this order
    at               timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind             text NOT NULL,
    recovered        boolean NOT NULL DEFAULT false,       -- the problem is over
    subject          text NOT NULL DEFAULT '',             -- a hub id, where it is about one connection
    detail           jsonb NOT NULL DEFAULT '{}',
    logged_at        timestamptz,                          -- null: not logged yet
    due_at           timestamptz DEFAULT now(),            -- when to post it (again); null: no more attempts
    attempts         integer NOT NULL DEFAULT 0,           -- posts begun
    lease_until      timestamptz,                          -- until then one worker alone posts it; null: no lease
    summarized_count integer NOT NULL DEFAULT 0,           -- earlier alerts of its kind that this one replaces
    delivered_at     timestamptz,                          -- null: not delivered
    CONSTRAINT alerts_kind_known
        CHECK (kind IN ('provider', 'connection_revoked', 'stale_connections', 'revocation_brake', 'beat_missing',
                        'old_snapshot', 'notification_queue'))
);
CREATE INDEX alerts_pending ON tokenkeeper.alerts (kind, number) WHERE due_at IS NOT NULL;
CREATE INDEX alerts_delivered ON tokenkeeper.alerts (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX alerts_of_kind ON tokenkeeper.alerts (kind, at);

-- HubSpot's state as a whole, the token bucket of refreshes, and the revocation brake: exactly one row.
CREATE TABLE tokenkeeper.provider (
    singleton              boolean PRIMARY KEY DEFAULT true CONSTRAINT provider_singleton CHECK (singleton),
    condition              text NOT NULL DEFAULT 'ok',
    since                  timestamptz DEFAULT now(),    -- of the condition
    reason                 text,                         -- of the condition; null: ok
    consecutive_no_answer  integer NOT NULL DEFAULT 0,   -- first attempts that HubSpot did not answer
    consecutive_unknown    integer NOT NULL DEFAULT 0,   -- first attempts refused with an error that is not known
    paused_until           timestamptz,                  -- no refreshes until then; null: no pause
    rate                   double precision,             -- refreshes a second, all workers together; null: no limit
    bucket_level           double precision NOT NULL DEFAULT 1,  -- refreshes that may begin at once
    bucket_refilled_at     timestamptz NOT NULL DEFAULT now(),
    swept_at               timestamptz,                  -- start of the newest sweep; null before the first
    last_success_at        timestamptz,                  -- newest refresh that worked, to five seconds; null before the first
    brake_since            timestamptz,                  -- null: the revocation brake is off
    brake_reset_at         timestamptz,                  -- newest dismissal: earlier revocations do not count; null: none
    has_postponed          boolean NOT NULL DEFAULT false,  -- a fault is over, and not all that it postponed is due yet
    swept_without_beat_since timestamptz,                -- first of the newest sweeps that workers began; null: beat began it
    CONSTRAINT provider_condition_known
        CHECK (condition IN ('ok', 'unavailable', 'throttled', 'app_rejected'))
);
INSERT INTO tokenkeeper.provider DEFAULT VALUES;

-- Requests to refresh a connection now, by jobs and operators. The next sweep applies and deletes them: a caller's
-- transaction that stays open locks no connection (docs/adr/0022).
CREATE TABLE tokenkeeper.refresh_requests (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hub_id           bigint NOT NULL,
    token_granted_at timestamptz NOT NULL,           -- refreshed_at of the access token that it is about; -infinity: none
    attempt          integer,                        -- of one request for one token; null: apart from all others
    is_operator      boolean NOT NULL DEFAULT false, -- requested by an operator, not by a job
    requested_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX refresh_requests_once ON tokenkeeper.refresh_requests (hub_id, token_granted_at, attempt);

-- Refresh tokens that HubSpot rotated, while another transaction had locked the connection. A sweep applies and deletes
-- them; a connection that has one here is not claimed.
CREATE TABLE tokenkeeper.rotated_tokens (
    hub_id                  bigint NOT NULL,
    lease_number            bigint NOT NULL,      -- this and the next one: of the claim whose refresh brought it
    generation              bigint NOT NULL,
    encrypted_refresh_token text NOT NULL,
    granted_at              timestamptz NOT NULL, -- start of the request that brought it
    PRIMARY KEY (hub_id, lease_number)
);

-- A row of this table is locked while an install of that hub is stored, also where the hub has no connection yet.
CREATE TABLE tokenkeeper.install_locks (
    hub_id bigint PRIMARY KEY
);

-- The oldest snapshot that keeps PostgreSQL from removing old versions of rows, and how full its queue of notifications
-- is, as each sweep measures them: exactly one row.
CREATE TABLE tokenkeeper.oldest_snapshot (
    singleton         boolean PRIMARY KEY DEFAULT true CONSTRAINT oldest_snapshot_singleton CHECK (singleton),
    xmin_horizon      text,                          -- the oldest transaction id that it sees as running; null: none
    since             timestamptz,                   -- when a sweep first saw it; null: none
    holder            jsonb NOT NULL DEFAULT '{}',   -- what holds it: kind, name, user, application
    queue_usage       double precision NOT NULL DEFAULT 0,   -- of the queue of notifications, from 0 to 1
    is_alerted        boolean NOT NULL DEFAULT false,        -- the newest alert says that it is too old
    is_queue_alerted  boolean NOT NULL DEFAULT false         -- the newest alert says that the queue is filling
);
INSERT INTO tokenkeeper.oldest_snapshot DEFAULT VALUES;

-- Newest installs that were dated by the clock of a web host, or replaced such a one: another install of the same hub may
-- be the newer one. Its refresh token is tried before the connection is revoked (docs/adr/0029).
CREATE TABLE tokenkeeper.uncertain_installs (
    hub_id                        bigint PRIMARY KEY,
    other_encrypted_refresh_token text,      -- of the install that it replaced; null: there was none
    kept_at                       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The number of rows in `connections`, which would take long to count: exactly one row, kept by the triggers below.
CREATE TABLE tokenkeeper.connection_counts (
    singleton   boolean PRIMARY KEY DEFAULT true CONSTRAINT connection_counts_singleton CHECK (singleton),
    connections bigint NOT NULL DEFAULT 0
);
INSERT INTO tokenkeeper.connection_counts DEFAULT VALUES;

-- Refreshes by minute, for charts; pruned after three days.
CREATE TABLE tokenkeeper.refreshes_by_minute (
    minute    timestamptz PRIMARY KEY,
    refreshed bigint NOT NULL DEFAULT 0,
    failed    bigint NOT NULL DEFAULT 0   -- attempts that brought no token
) WITH (fillfactor = 50);

-- Counters since the database was created, for /metrics: attempts by outcome, and the lateness histogram.
CREATE TABLE tokenkeeper.refresh_counters (
    kind  text NOT NULL,
    name  text NOT NULL,                  -- an outcome; the upper bound of a bucket, in seconds; or empty
    total double precision NOT NULL,      -- a number of refreshes; for lateness_seconds a sum of seconds
    PRIMARY KEY (kind, name),
    CONSTRAINT refresh_counters_kind_known CHECK (kind IN ('attempts', 'lateness', 'lateness_seconds'))
) WITH (fillfactor = 50);

-- When old rows were last deleted: exactly one row.
CREATE TABLE tokenkeeper.pruning_state (
    singleton boolean PRIMARY KEY DEFAULT true CONSTRAINT pruning_state_singleton CHECK (singleton),
    pruned_at timestamptz                 -- null: never
);
INSERT INTO tokenkeeper.pruning_state DEFAULT VALUES;

-- A constant, encrypted with TOKEN_KEYS: processes that may not read refresh tokens check their keys by it. At most one row.
CREATE TABLE tokenkeeper.key_check (
    singleton             boolean PRIMARY KEY DEFAULT true CONSTRAINT key_check_singleton CHECK (singleton),
    encrypted_check_value text NOT NULL
);

-- Triggers. search_path is fixed so that a caller cannot redirect a name; pg_temp is named last, because PostgreSQL
-- otherwise searches it first.

CREATE FUNCTION tokenkeeper.track_inserted_connections() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inserted_count bigint := (SELECT count(*) FROM inserted);
BEGIN
    IF inserted_count > 0 THEN
        UPDATE tokenkeeper.connection_counts SET connections = connections + inserted_count;
        INSERT INTO tokenkeeper.accounts (hub_id) SELECT hub_id FROM inserted ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER track_inserted_connections AFTER INSERT ON tokenkeeper.connections
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION tokenkeeper.track_inserted_connections();

CREATE FUNCTION tokenkeeper.track_deleted_connections() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE tokenkeeper.connection_counts SET connections = connections - (SELECT count(*) FROM deleted);
    DELETE FROM tokenkeeper.accounts AS a USING deleted WHERE a.hub_id = deleted.hub_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER track_deleted_connections AFTER DELETE ON tokenkeeper.connections
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION tokenkeeper.track_deleted_connections();

CREATE FUNCTION tokenkeeper.notify_status_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- PostgreSQL cannot shorten the queue while a session that listens has a transaction open, and where it is full no
    -- transaction that notifies can be committed. The history must be written whatever another session does.
    IF pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('hubspot_connections', json_build_object('hub_id', NEW.hub_id, 'event', NEW.event)::text);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER notify_status_change AFTER INSERT ON tokenkeeper.history
    FOR EACH ROW WHEN (NEW.status IS NOT NULL) EXECUTE FUNCTION tokenkeeper.notify_status_change();

-- For web, which may not read refresh tokens: whether a connection has one. Null: there is no such connection.
-- VOLATILE, so that a row that the caller waited for is seen as it is now.
CREATE FUNCTION tokenkeeper.has_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.encrypted_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;

-- For web, which may not read refresh tokens: keeps that of the connection, before another install replaces it.
CREATE FUNCTION tokenkeeper.keep_uncertain_install(hub_id bigint) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
INSERT INTO tokenkeeper.uncertain_installs (hub_id, other_encrypted_refresh_token)
VALUES ($1, (SELECT c.encrypted_refresh_token FROM tokenkeeper.connections AS c
              WHERE c.hub_id = $1 AND c.status IN ('active', 'suspect')))
ON CONFLICT ON CONSTRAINT uncertain_installs_pkey DO UPDATE
   SET other_encrypted_refresh_token = excluded.other_encrypted_refresh_token, kept_at = excluded.kept_at
$$;

-- The only way to delete lines of the history, for roles that may not: failures and recoveries without a change of status
-- that are older than 90 days. Returns how many of at most max_rows were deleted.
CREATE FUNCTION tokenkeeper.prune_history(max_rows integer) RETURNS bigint
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH old AS MATERIALIZED (
        SELECT h.id FROM tokenkeeper.history AS h
         WHERE h.status IS NULL AND h.event IN ('refresh_failed', 'recovered') AND h.at < now() - interval '90 days'
         ORDER BY h.at LIMIT $1 FOR UPDATE SKIP LOCKED
    ), deleted AS (
        DELETE FROM tokenkeeper.history AS h USING old WHERE h.id = old.id RETURNING 1
    )
    SELECT count(*) FROM deleted
$$;

REVOKE ALL ON SCHEMA tokenkeeper FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tokenkeeper FROM PUBLIC;
