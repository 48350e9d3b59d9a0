-- Uninstalls that HubSpot reports in its Webhooks Journal (docs/adr/0036): where the reading of it stands, and what was
-- reported.

-- One row for each app whose journal is read.
CREATE TABLE tokenkeeper.journals (
    app           text COLLATE "C" PRIMARY KEY,
    next_offset   text,                  -- HubSpot's name of the place behind the newest file that was read; null: the beginning
    state         text NOT NULL DEFAULT 'starting',  -- one of the CHECK below
    since         timestamptz NOT NULL DEFAULT now(),    -- of the state
    reason        text,                  -- of the state; null: it is read
    failures      integer NOT NULL DEFAULT 0,            -- consecutive turns that did not reach the end
    due_at        timestamptz NOT NULL DEFAULT now(),    -- when to read it next
    lease_until   timestamptz,           -- until then one process alone reads it; null: no lease
    lease_number  bigint NOT NULL DEFAULT 0,             -- of the newest lease: fences out the turns of older ones
    read_at       timestamptz,           -- when the end of the journal was last reached; null: never
    restarted_at  timestamptz,           -- when it was last read from its beginning again; null: never
    unheard_since timestamptz,           -- entries before it may be lost: connections not refreshed since are asked about; null: none
    asked_up_to   bigint NOT NULL DEFAULT 0,             -- the connections with ids up to this one have been
    is_alerted    boolean NOT NULL DEFAULT false,        -- the newest alert says that it is read no more
    CONSTRAINT journals_state_known CHECK (state IN ('starting', 'reading', 'failing', 'refused'))
);

-- Uninstalls as they were reported, each once. A sweep of its own acts on them; they are deleted when the journal cannot
-- repeat them any more.
CREATE TABLE tokenkeeper.reported_uninstalls (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app         text COLLATE "C" NOT NULL,
    hub_id      bigint NOT NULL,
    user_id     bigint,                  -- whose install it was; null: not said
    occurred_at timestamptz,             -- by HubSpot's clock; null: not said
    witness     text NOT NULL,           -- one of the CHECK below
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at  timestamptz,             -- null: not acted upon yet
    CONSTRAINT reported_uninstalls_witness_known CHECK (witness IN ('journal', 'introspection')),
    CONSTRAINT reported_uninstalls_once UNIQUE NULLS NOT DISTINCT (app, hub_id, user_id, occurred_at)
);
CREATE INDEX reported_uninstalls_unsettled ON tokenkeeper.reported_uninstalls (app, id) WHERE settled_at IS NULL;
CREATE INDEX reported_uninstalls_reported ON tokenkeeper.reported_uninstalls (reported_at);  -- pruning

ALTER TABLE tokenkeeper.alerts DROP CONSTRAINT alerts_kind_known;
ALTER TABLE tokenkeeper.alerts ADD CONSTRAINT alerts_kind_known
    CHECK (kind IN ('provider', 'connection_revoked', 'stale_connections', 'revocation_brake', 'beat_missing',
                    'old_snapshot', 'notification_queue', 'journal_stopped'));
