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
