-- A session keeps the plans of a function's statements. Those made while a table was small would read all of it: for each
-- of thousands of lines of the history, once an outage or a mass revocation has made it large. Changes catalogues only.
ALTER FUNCTION tokenkeeper.order_history() SET enable_seqscan = off;
ALTER FUNCTION tokenkeeper.has_refresh_token(bigint) SET enable_seqscan = off;
ALTER FUNCTION tokenkeeper.keep_uncertain_install(bigint, boolean, boolean) SET enable_seqscan = off;
ALTER FUNCTION hubspot.request_refresh(bigint, text, text, bigint) SET enable_seqscan = off;
