-- A read of hubspot.tokens costs little more than one of the table below it (docs/adr/0039). Changes catalogues only.

-- No security_barrier: it would make each read run a subquery. A function in a reader's WHERE clause may be called with rows
-- that the view leaves out, but never with their token: the column itself hides it. The rest of such a row is in
-- hubspot.connections. A revoked connection has no token, and without a token there is no expires_at: constraints of the table.
-- Stable functions only among the columns: a volatile one would be computed for every reader.
CREATE OR REPLACE VIEW hubspot.tokens AS
SELECT hub_id,
       CASE WHEN status <> 'disconnected' AND expires_at > statement_timestamp() THEN access_token END AS access_token,
       expires_at,
       greatest(0, floor(date_part('epoch', expires_at - statement_timestamp())))::integer AS expires_in,
       scopes,
       refreshed_at,
       app,
       user_id,
       customer
  FROM tokenkeeper.connections
 WHERE status <> 'disconnected'
   AND expires_at > clock_timestamp();
