-- Brings a database of tokenkeeper 0.1.0 (revision 0003), with all that it stores, to revision 0004: the same tables under
-- plain names. shared/db/schema/migrate.py runs this in its transaction. Nothing is rewritten, so it takes milliseconds
-- at any size; readers of the public views wait for that long.

-- In the order in which the product locks them, so that a process that still runs cannot cause a deadlock.
LOCK TABLE tokenkeeper.provider, tokenkeeper.connections, tokenkeeper.totals, tokenkeeper.accounts, tokenkeeper.history,
           tokenkeeper.installs, tokenkeeper.alerts, tokenkeeper.minutes, tokenkeeper.tally, tokenkeeper.pruned,
           tokenkeeper.key_check IN ACCESS EXCLUSIVE MODE;

ALTER TABLE tokenkeeper.connections RENAME COLUMN life TO lifetime_seconds;
ALTER TABLE tokenkeeper.connections RENAME COLUMN sealed_refresh_token TO encrypted_refresh_token;
ALTER TABLE tokenkeeper.connections RENAME COLUMN identify_due_at TO account_info_due_at;
ALTER TABLE tokenkeeper.connections RENAME COLUMN not_before TO retry_not_before;
ALTER TABLE tokenkeeper.connections RENAME COLUMN condemned TO pending_revocation;
ALTER TABLE tokenkeeper.connections RENAME COLUMN lease_no TO lease_number;
ALTER TABLE tokenkeeper.connections RENAME COLUMN revocation_told TO revocation_alerted;
ALTER TABLE tokenkeeper.connections
    RENAME CONSTRAINT connections_condemned_is_suspect TO connections_pending_revocation_is_suspect;
ALTER INDEX tokenkeeper.connections_unidentified RENAME TO connections_account_info_due;
ALTER INDEX tokenkeeper.connections_revocation_untold RENAME TO connections_revocation_alert_due;
ALTER INDEX tokenkeeper.connections_unwiped RENAME TO connections_disconnect_unfinished;

ALTER TABLE tokenkeeper.connections ALTER COLUMN generation SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
ALTER TABLE tokenkeeper.connections ADD COLUMN requested_refresh_at timestamptz;

ALTER TABLE tokenkeeper.accounts RENAME COLUMN listed TO sort_key;
ALTER TABLE tokenkeeper.accounts RENAME COLUMN sought TO search_text;
ALTER INDEX tokenkeeper.accounts_listed RENAME TO accounts_sorted;

ALTER TABLE tokenkeeper.alerts RENAME COLUMN stands_for TO summarized_count;
ALTER TABLE tokenkeeper.alerts DROP CONSTRAINT alerts_kind_known;
ALTER TABLE tokenkeeper.alerts ADD CONSTRAINT alerts_kind_known
    CHECK (kind IN ('provider', 'connection_revoked', 'stale_connections', 'revocation_brake', 'beat_missing',
                    'old_snapshot', 'notification_queue'));

ALTER TABLE tokenkeeper.provider RENAME COLUMN one TO singleton;
ALTER TABLE tokenkeeper.provider RENAME COLUMN silent TO consecutive_no_answer;
ALTER TABLE tokenkeeper.provider RENAME COLUMN refused TO consecutive_unknown;
ALTER TABLE tokenkeeper.provider RENAME COLUMN allowance TO bucket_level;
ALTER TABLE tokenkeeper.provider RENAME COLUMN refilled_at TO bucket_refilled_at;
ALTER TABLE tokenkeeper.provider RENAME CONSTRAINT provider_is_one TO provider_singleton;
ALTER TABLE tokenkeeper.provider ADD COLUMN has_postponed boolean NOT NULL DEFAULT false;
ALTER TABLE tokenkeeper.provider ADD COLUMN swept_without_beat_since timestamptz;

ALTER TABLE tokenkeeper.totals RENAME TO connection_counts;
ALTER TABLE tokenkeeper.connection_counts RENAME COLUMN one TO singleton;
ALTER TABLE tokenkeeper.connection_counts RENAME CONSTRAINT totals_is_one TO connection_counts_singleton;
ALTER TABLE tokenkeeper.connection_counts RENAME CONSTRAINT totals_pkey TO connection_counts_pkey;

ALTER TABLE tokenkeeper.minutes RENAME TO refreshes_by_minute;
ALTER TABLE tokenkeeper.refreshes_by_minute RENAME CONSTRAINT minutes_pkey TO refreshes_by_minute_pkey;

ALTER TABLE tokenkeeper.tally RENAME TO refresh_counters;
ALTER TABLE tokenkeeper.refresh_counters RENAME CONSTRAINT tally_kind_known TO refresh_counters_kind_known;
ALTER TABLE tokenkeeper.refresh_counters RENAME CONSTRAINT tally_pkey TO refresh_counters_pkey;
UPDATE tokenkeeper.refresh_counters
   SET name = CASE name WHEN 'unwell' THEN 'unavailable' WHEN 'portal_moving' THEN 'account_migrating'
                        WHEN 'grant_dead' THEN 'invalid_grant' WHEN 'unopened' THEN 'decryption_failed' END
 WHERE kind = 'attempts' AND name IN ('unwell', 'portal_moving', 'grant_dead', 'unopened');

ALTER TABLE tokenkeeper.pruned RENAME TO pruning_state;
ALTER TABLE tokenkeeper.pruning_state RENAME COLUMN one TO singleton;
ALTER TABLE tokenkeeper.pruning_state RENAME COLUMN at TO pruned_at;
ALTER TABLE tokenkeeper.pruning_state RENAME CONSTRAINT pruned_is_one TO pruning_state_singleton;
ALTER TABLE tokenkeeper.pruning_state RENAME CONSTRAINT pruned_pkey TO pruning_state_pkey;

ALTER TABLE tokenkeeper.key_check RENAME COLUMN one TO singleton;
ALTER TABLE tokenkeeper.key_check RENAME COLUMN sealed TO encrypted_check_value;
ALTER TABLE tokenkeeper.key_check RENAME CONSTRAINT key_check_is_one TO key_check_singleton;

-- New tables.
CREATE TABLE tokenkeeper.refresh_requests (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hub_id           bigint NOT NULL,
    token_granted_at timestamptz NOT NULL,           -- refreshed_at of the access token that it is about; -infinity: none
    attempt          integer,                        -- of one request for one token; null: apart from all others
    is_operator      boolean NOT NULL DEFAULT false, -- requested by an operator, not by a job
    requested_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE UNIQUE INDEX refresh_requests_once ON tokenkeeper.refresh_requests (hub_id, token_granted_at, attempt);
CREATE TABLE tokenkeeper.rotated_tokens (
    hub_id                  bigint NOT NULL,
    lease_number            bigint NOT NULL,      -- this and the next one: of the claim whose refresh brought it
    generation              bigint NOT NULL,
    encrypted_refresh_token text NOT NULL,
    granted_at              timestamptz NOT NULL, -- start of the request that brought it
    PRIMARY KEY (hub_id, lease_number)
);
CREATE TABLE tokenkeeper.install_locks (
    hub_id bigint PRIMARY KEY
);
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
CREATE TABLE tokenkeeper.uncertain_installs (
    hub_id                        bigint PRIMARY KEY,
    other_encrypted_refresh_token text,      -- of the install that it replaced; null: there was none
    kept_at                       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Functions hold the text of their statements, so those that name what was renamed are replaced. Privileges stay.
DROP TRIGGER count_in ON tokenkeeper.connections;
DROP TRIGGER count_out ON tokenkeeper.connections;
ALTER FUNCTION tokenkeeper.count_in() RENAME TO track_inserted_connections;
ALTER FUNCTION tokenkeeper.count_out() RENAME TO track_deleted_connections;
ALTER FUNCTION tokenkeeper.tell() RENAME TO notify_status_change;
ALTER TRIGGER tell ON tokenkeeper.history RENAME TO notify_status_change;
ALTER FUNCTION tokenkeeper.holds_refresh_token(bigint) RENAME TO has_refresh_token;

CREATE OR REPLACE FUNCTION tokenkeeper.track_inserted_connections() RETURNS trigger
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

CREATE OR REPLACE FUNCTION tokenkeeper.track_deleted_connections() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE tokenkeeper.connection_counts SET connections = connections - (SELECT count(*) FROM deleted);
    DELETE FROM tokenkeeper.accounts AS a USING deleted WHERE a.hub_id = deleted.hub_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER track_deleted_connections AFTER DELETE ON tokenkeeper.connections
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION tokenkeeper.track_deleted_connections();

CREATE OR REPLACE FUNCTION tokenkeeper.notify_status_change() RETURNS trigger
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
REVOKE ALL ON FUNCTION tokenkeeper.prune_history(integer) FROM PUBLIC;

CREATE FUNCTION tokenkeeper.keep_uncertain_install(hub_id bigint) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
INSERT INTO tokenkeeper.uncertain_installs (hub_id, other_encrypted_refresh_token)
VALUES ($1, (SELECT c.encrypted_refresh_token FROM tokenkeeper.connections AS c
              WHERE c.hub_id = $1 AND c.status IN ('active', 'suspect')))
ON CONFLICT ON CONSTRAINT uncertain_installs_pkey DO UPDATE
   SET other_encrypted_refresh_token = excluded.other_encrypted_refresh_token, kept_at = excluded.kept_at
$$;
REVOKE ALL ON FUNCTION tokenkeeper.keep_uncertain_install(bigint) FROM PUBLIC;

CREATE OR REPLACE FUNCTION tokenkeeper.has_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.encrypted_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;

CREATE OR REPLACE FUNCTION hubspot.request_refresh(hub_id bigint, access_token text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
DECLARE
    connection   record;
    is_in_flight boolean;
    next_attempt integer;
BEGIN
    SELECT c.status, c.access_token, c.expires_at, c.lease_until, c.refresh_requested,
           coalesce(c.refreshed_at, '-infinity') AS token_granted_at
      INTO connection FROM tokenkeeper.connections AS c WHERE c.hub_id = $1;
    IF NOT FOUND OR connection.status NOT IN ('active', 'suspect') THEN
        RETURN false;
    END IF;
    -- The job has an older token: another one is served already.
    IF $2 <> connection.access_token AND connection.expires_at > clock_timestamp() THEN
        RETURN false;
    END IF;
    -- While a refresh is in flight the answer is true, whether it was requested before or not.
    is_in_flight := coalesce(connection.lease_until > clock_timestamp(), false);
    IF connection.refresh_requested OR EXISTS (
        SELECT FROM tokenkeeper.refresh_requests AS r
         WHERE r.hub_id = $1 AND r.token_granted_at = connection.token_granted_at
    ) THEN
        RETURN is_in_flight;
    END IF;
    -- Of concurrent requests for one token the first one counts; the others wait until it is committed. Where that
    -- takes too long, and it may be rolled back, a second one is stored, and at last one that waits for no other.
    FOREACH next_attempt IN ARRAY ARRAY[1, 2, NULL] LOOP
        BEGIN
            INSERT INTO tokenkeeper.refresh_requests (hub_id, token_granted_at, attempt)
            VALUES ($1, connection.token_granted_at, next_attempt) ON CONFLICT DO NOTHING;
            RETURN FOUND OR is_in_flight;
        EXCEPTION
            WHEN lock_not_available THEN
                NULL;
            WHEN serialization_failure THEN
                RETURN is_in_flight;  -- stored already, and not visible to the caller's repeatable snapshot
        END;
    END LOOP;
    RETURN true;
END
$$;

UPDATE tokenkeeper.alembic_version SET version_num = '0004';
