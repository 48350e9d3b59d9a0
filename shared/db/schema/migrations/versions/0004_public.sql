-- The schema `hubspot`: all that downstream jobs may read, and the one function that they may call.

-- A role belongs to the whole cluster: another tokenkeeper's database may have it already, or create it at this moment.
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

-- shared/db/schema/migrate.py creates the schema itself, unless an administrator has.

-- One row per connection whose token works at this very moment: clock_timestamp() also moves on inside a transaction.
-- security_barrier, so that no function in a reader's WHERE clause is called with rows that the view leaves out.
-- expires_in counts from the statement's start: a volatile function among the columns would be computed for every reader,
-- and would keep the planner from merging the view into the query around it.
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

CREATE VIEW hubspot.history WITH (security_barrier) AS
SELECT hub_id, at, event, detail
  FROM tokenkeeper.history;

-- For a job that got a 401. The connection's row is read without a lock, and the request is a row of its own, which the
-- next sweep applies: a transaction that stays open after it makes neither a refresh nor another request wait for long.
CREATE FUNCTION hubspot.request_refresh(hub_id bigint, access_token text DEFAULT NULL) RETURNS boolean
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

REVOKE ALL ON SCHEMA hubspot FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hubspot FROM PUBLIC;
GRANT USAGE ON SCHEMA hubspot TO hubspot_reader;
GRANT SELECT ON hubspot.tokens, hubspot.connections, hubspot.history TO hubspot_reader;
GRANT EXECUTE ON FUNCTION hubspot.request_refresh(bigint, text) TO hubspot_reader;
