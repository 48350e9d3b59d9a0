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

CREATE SCHEMA hubspot;

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

-- For a job that got a 401. The row is locked, so that of several requests at once one comes first.
CREATE FUNCTION hubspot.request_refresh(hub_id bigint, access_token text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    connection tokenkeeper.connections;
    earliest   timestamptz;
BEGIN
    SELECT c.* INTO connection FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 FOR NO KEY UPDATE;
    IF NOT FOUND OR connection.status NOT IN ('active', 'suspect') THEN
        RETURN false;
    END IF;
    -- The job has an older token: another one is served already.
    IF $2 <> connection.access_token AND connection.expires_at > clock_timestamp() THEN
        RETURN false;
    END IF;
    -- A refresh is in flight, or was until its worker stopped: due when the lease ends, and no second one is added.
    IF connection.lease_until > clock_timestamp() THEN
        UPDATE tokenkeeper.connections AS c
           SET due_at = least(c.due_at, clock_timestamp()), refresh_requested = true
         WHERE c.hub_id = $1 AND NOT (c.refresh_requested AND c.due_at <= clock_timestamp());
        RETURN true;
    END IF;
    IF connection.refresh_requested THEN
        RETURN false;
    END IF;
    earliest := greatest(clock_timestamp(), connection.retry_not_before);
    UPDATE tokenkeeper.connections AS c
       SET due_at = least(c.due_at, earliest), refresh_requested = true
     WHERE c.hub_id = $1;
    RETURN true;
END
$$;

REVOKE ALL ON SCHEMA hubspot FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA hubspot FROM PUBLIC;
GRANT USAGE ON SCHEMA hubspot TO hubspot_reader;
GRANT SELECT ON hubspot.tokens, hubspot.connections, hubspot.history TO hubspot_reader;
GRANT EXECUTE ON FUNCTION hubspot.request_refresh(bigint, text) TO hubspot_reader;
