-- A kept refresh token does not say that the order of two installs is uncertain: it may be one that HubSpot rotated after
-- the grant of an install that was stored late.
ALTER TABLE tokenkeeper.uncertain_installs ADD COLUMN is_order_uncertain boolean NOT NULL DEFAULT true;

DROP FUNCTION tokenkeeper.keep_uncertain_install(bigint, boolean);
-- `has_other`: the connection existed before this install, so the refresh token that it has is of another one.
CREATE FUNCTION tokenkeeper.keep_uncertain_install(connection_id bigint, has_other boolean, is_order_uncertain boolean)
    RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
INSERT INTO tokenkeeper.uncertain_installs (connection_id, other_encrypted_refresh_token, is_order_uncertain)
VALUES ($1, (SELECT c.encrypted_refresh_token FROM tokenkeeper.connections AS c
              WHERE c.id = $1 AND $2 AND c.status IN ('active', 'suspect')), $3)
ON CONFLICT ON CONSTRAINT uncertain_installs_pkey DO UPDATE
   SET other_encrypted_refresh_token = excluded.other_encrypted_refresh_token, kept_at = excluded.kept_at,
       is_order_uncertain = excluded.is_order_uncertain
$$;
REVOKE ALL ON FUNCTION tokenkeeper.keep_uncertain_install(bigint, boolean, boolean) FROM PUBLIC;
