-- The history in the order of commitment, and the delivery of events to our own product (docs/adr/0037).

-- A line of the history gets its id at its INSERT, and its final one at the COMMIT, while no other transaction that writes
-- history can commit: so a reader who follows the ids misses no line. The lock is that of an empty table, on which no role
-- has a privilege; it is the last one that a transaction takes, and nothing is waited for while it is held.
CREATE TABLE tokenkeeper.history_order ();

CREATE FUNCTION tokenkeeper.order_history() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE tokenkeeper.history_order IN SHARE ROW EXCLUSIVE MODE;
    UPDATE tokenkeeper.history SET id = DEFAULT WHERE id = NEW.id;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER order_history AFTER INSERT ON tokenkeeper.history
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tokenkeeper.order_history();

-- How far the history is sent to EVENTS_WEBHOOK_URL, and how the receiver is: exactly one row.
CREATE TABLE tokenkeeper.event_delivery (
    singleton       boolean PRIMARY KEY DEFAULT true CONSTRAINT event_delivery_singleton CHECK (singleton),
    is_enabled      boolean NOT NULL DEFAULT false,    -- the worker that started last has EVENTS_WEBHOOK_URL
    cursor_id       bigint,                            -- newest line that was sent or waits in event_retries; null: never enabled
    replay_until    bigint NOT NULL DEFAULT 0,         -- lines up to this one are sent again, as an operator has said,
    replayed_at     timestamptz,                       -- at this time: so they are not too old
    rate            double precision NOT NULL DEFAULT 50,  -- posts a second
    failures        integer NOT NULL DEFAULT 0,        -- batches in a row of which the receiver accepted nothing
    failing_since   timestamptz,                       -- first of them; null: none
    paused_until    timestamptz,                       -- nothing is sent until then; null: no pause
    stopped_at      timestamptz,                       -- the receiver answered 410: nothing is sent until an operator resumes
    last_accepted_at timestamptz,                      -- null: never
    accepted        bigint NOT NULL DEFAULT 0,
    dropped         bigint NOT NULL DEFAULT 0,         -- lines that were not accepted for three days
    lease_until     timestamptz,                       -- until then one process alone sends; null: no lease
    lease_number    bigint NOT NULL DEFAULT 0          -- fences out what a process reports after its lease
);
INSERT INTO tokenkeeper.event_delivery DEFAULT VALUES;

-- Connections whose oldest event was not accepted: their later ones wait behind it, in the history. A thousand at most;
-- with more, no further line of the history is sent until there are fewer.
CREATE TABLE tokenkeeper.event_retries (
    hub_id     bigint NOT NULL,
    app        text COLLATE "C" NOT NULL,
    user_id    bigint,
    history_id bigint NOT NULL,                        -- the oldest line that was not accepted
    attempts   integer NOT NULL,                       -- posts of that line that failed
    due_at     timestamptz NOT NULL,
    failed_at  timestamptz,                            -- newest of those posts; null: none
    last_error text,
    CONSTRAINT event_retries_connection UNIQUE NULLS NOT DISTINCT (hub_id, app, user_id)
);
CREATE INDEX event_retries_due ON tokenkeeper.event_retries (due_at);
-- It has no primary key: without this, a publication of all tables would reject every change of a row.
ALTER TABLE tokenkeeper.event_retries REPLICA IDENTITY FULL;

-- How many connections lack scopes that their app requires: counted by a sweep now and then.
ALTER TABLE tokenkeeper.apps
    ADD COLUMN counted_at       timestamptz,                   -- null: not yet
    ADD COLUMN counted_scopes   text[] NOT NULL DEFAULT '{}',  -- those required at that time
    ADD COLUMN lacking          bigint NOT NULL DEFAULT 0,     -- active or suspect connections that lack at least one
    ADD COLUMN lacking_by_scope jsonb NOT NULL DEFAULT '{}';   -- scope to the number of connections that lack it

ALTER TABLE tokenkeeper.alerts DROP CONSTRAINT alerts_kind_known;
ALTER TABLE tokenkeeper.alerts ADD CONSTRAINT alerts_kind_known
    CHECK (kind IN ('provider', 'connection_revoked', 'stale_connections', 'revocation_brake', 'beat_missing',
                    'old_snapshot', 'notification_queue', 'journal_stopped', 'events_webhook', 'scopes_lost'));

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA tokenkeeper FROM PUBLIC;
