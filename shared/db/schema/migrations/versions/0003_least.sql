-- For processes that may not do everything: shared/db/privileges.py says what each may.

-- A caller's search_path decides nothing: pg_temp is named, or it would be looked into first.
ALTER FUNCTION tokenkeeper.count_in() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tokenkeeper.count_out() SET search_path = pg_catalog, pg_temp;
ALTER FUNCTION tokenkeeper.tell() SET search_path = pg_catalog, pg_temp;

-- Something that TOKEN_KEYS sealed and that tells nobody anything: who may not read a refresh token holds its keys
-- against this. At most one row.
CREATE TABLE tokenkeeper.key_check (
    one    boolean PRIMARY KEY DEFAULT true CONSTRAINT key_check_is_one CHECK (one),
    sealed text NOT NULL
);

-- All that web learns of a refresh token: whether there is one. Volatile, so that a row which was waited for is seen as
-- it is now.
CREATE FUNCTION tokenkeeper.holds_refresh_token(hub_id bigint) RETURNS boolean
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT c.sealed_refresh_token IS NOT NULL FROM tokenkeeper.connections AS c WHERE c.hub_id = $1 $$;
REVOKE ALL ON FUNCTION tokenkeeper.holds_refresh_token(bigint) FROM PUBLIC;
