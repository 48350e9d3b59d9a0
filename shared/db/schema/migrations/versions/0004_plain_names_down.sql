ALTER TABLE tokenkeeper.connections RENAME COLUMN encrypted_refresh_token TO sealed_refresh_token;
ALTER TABLE tokenkeeper.connections RENAME COLUMN lease_number TO lease_no;
ALTER TABLE tokenkeeper.connections RENAME COLUMN account_info_due_at TO identify_due_at;
ALTER TABLE tokenkeeper.connections RENAME COLUMN pending_revocation TO condemned;
ALTER TABLE tokenkeeper.connections
    RENAME CONSTRAINT connections_pending_revocation_is_suspect TO connections_condemned_is_suspect;

CREATE OR REPLACE FUNCTION tokenkeeper.holds_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.sealed_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;
