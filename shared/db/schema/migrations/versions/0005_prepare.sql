-- What revision 0005 can do while everything runs: shared/db/schema/online.py runs each step by itself, outside a
-- transaction, where the database is in use already; 0005_identity.py runs all of them in its transaction (a new database).
-- Each step may be repeated after an interruption. None holds a lock that stops a refresh or a reader for long.
-- A step begins with its name, and ends with the next one. Those of an index are named after the index.

-- step: add columns
-- `new_hub_id` becomes `hub_id`, when `hub_id` becomes `id`.
ALTER TABLE tokenkeeper.connections
    ADD COLUMN IF NOT EXISTS new_hub_id bigint,
    ADD COLUMN IF NOT EXISTS app        text COLLATE "C" NOT NULL DEFAULT 'default',
    ADD COLUMN IF NOT EXISTS user_id    bigint,
    ADD COLUMN IF NOT EXISTS customer   text;

-- step: add columns to the history
ALTER TABLE tokenkeeper.history
    ADD COLUMN IF NOT EXISTS app      text COLLATE "C" NOT NULL DEFAULT 'default',
    ADD COLUMN IF NOT EXISTS user_id  bigint,
    ADD COLUMN IF NOT EXISTS customer text;

-- step: copy the hub id of rows that are written meanwhile
CREATE OR REPLACE FUNCTION tokenkeeper.copy_hub_id() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.new_hub_id := NEW.hub_id;
    RETURN NEW;
END
$$;
CREATE OR REPLACE TRIGGER copy_hub_id BEFORE INSERT OR UPDATE ON tokenkeeper.connections
    FOR EACH ROW WHEN (NEW.new_hub_id IS NULL) EXECUTE FUNCTION tokenkeeper.copy_hub_id();

-- step: copy the hub id of all rows
-- shared/db/schema/online.py copies them in batches instead.
UPDATE tokenkeeper.connections SET new_hub_id = hub_id WHERE new_hub_id IS NULL;

-- step: count the values of the new columns
-- Without statistics the planner reads the whole table for a handful of hub ids.
ANALYZE tokenkeeper.connections (new_hub_id, app, user_id, customer);

-- step: add constraints
-- Without a scan: they hold for rows that are written from now on.
ALTER TABLE tokenkeeper.connections
    DROP CONSTRAINT IF EXISTS connections_new_hub_id_given,
    DROP CONSTRAINT IF EXISTS connections_customer_length,
    ADD CONSTRAINT connections_new_hub_id_given CHECK (new_hub_id IS NOT NULL) NOT VALID,
    ADD CONSTRAINT connections_customer_length CHECK (char_length(customer) BETWEEN 1 AND 200) NOT VALID;

-- step: validate constraints
ALTER TABLE tokenkeeper.connections
    VALIDATE CONSTRAINT connections_new_hub_id_given,
    VALIDATE CONSTRAINT connections_customer_length;

-- step: connections_identity
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS connections_identity
    ON tokenkeeper.connections (new_hub_id, app, user_id) NULLS NOT DISTINCT;

-- step: connections_customer
CREATE INDEX CONCURRENTLY IF NOT EXISTS connections_customer
    ON tokenkeeper.connections (customer) WHERE customer IS NOT NULL;

-- step: new_connections_due
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_connections_due
    ON tokenkeeper.connections (app, due_at, hub_id) WHERE due_at IS NOT NULL;

-- step: new_connections_account_info_due
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_connections_account_info_due
    ON tokenkeeper.connections (app, account_info_due_at)
    WHERE account_info_due_at IS NOT NULL AND access_token IS NOT NULL;

-- step: new_connections_not_active
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_connections_not_active
    ON tokenkeeper.connections (status, new_hub_id, hub_id) WHERE status <> 'active';

-- step: connections_not_active_of_app
CREATE INDEX CONCURRENTLY IF NOT EXISTS connections_not_active_of_app
    ON tokenkeeper.connections (app, status, hub_id) WHERE status <> 'active';

-- step: new_connections_failing
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_connections_failing
    ON tokenkeeper.connections (app, failures, hub_id) WHERE failures > 0;

-- step: new_connections_revocation_alert_due
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_connections_revocation_alert_due
    ON tokenkeeper.connections (app, hub_id) WHERE (status = 'revoked') <> revocation_alerted;

-- step: new_history_of_changes
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_history_of_changes
    ON tokenkeeper.history (app, at) WHERE status IS NOT NULL;

-- step: new_history_of_revocations
CREATE INDEX CONCURRENTLY IF NOT EXISTS new_history_of_revocations
    ON tokenkeeper.history (app, at) WHERE event = 'revoked';
