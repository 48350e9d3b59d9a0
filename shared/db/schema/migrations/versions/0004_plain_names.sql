-- Columns named by the standard terms of the field.
ALTER TABLE tokenkeeper.connections RENAME COLUMN sealed_refresh_token TO encrypted_refresh_token;
ALTER TABLE tokenkeeper.connections RENAME COLUMN lease_no TO lease_number;
ALTER TABLE tokenkeeper.connections RENAME COLUMN identify_due_at TO account_info_due_at;
ALTER TABLE tokenkeeper.connections RENAME COLUMN condemned TO pending_revocation;
ALTER TABLE tokenkeeper.connections
    RENAME CONSTRAINT connections_condemned_is_suspect TO connections_pending_revocation_is_suspect;

CREATE OR REPLACE FUNCTION tokenkeeper.holds_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.encrypted_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;
