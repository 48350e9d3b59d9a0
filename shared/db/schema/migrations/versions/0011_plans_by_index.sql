-- A session keeps the plans of a function's statements. Those made while a table was small would read all of it: for each
-- of thousands of lines of the history, once an outage or a mass revocation has made it large. Changes catalogues only.

-- With both columns every index that the planner can choose leads to the line, whatever size it takes the history for.
CREATE OR REPLACE FUNCTION tokenkeeper.order_history() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    LOCK TABLE tokenkeeper.history_order IN SHARE ROW EXCLUSIVE MODE;
    UPDATE tokenkeeper.history SET id = DEFAULT WHERE id = NEW.id AND hub_id = NEW.hub_id;
    RETURN NULL;
END
$$;

ALTER FUNCTION tokenkeeper.has_refresh_token(bigint) SET enable_seqscan = off;
ALTER FUNCTION tokenkeeper.keep_uncertain_install(bigint, boolean, boolean) SET enable_seqscan = off;
ALTER FUNCTION hubspot.request_refresh(bigint, text, text, bigint) SET enable_seqscan = off;
