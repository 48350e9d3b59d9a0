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
