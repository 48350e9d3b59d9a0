-- The same inside psql: \set hub 62515, and then these lines, or \i contacts.sql.
-- psql's history has these lines but not the token, which is never typed or printed.
SELECT access_token AS token FROM hubspot.tokens WHERE hub_id = :'hub' \gset
\setenv TOKEN :token
\! printf 'header = "Authorization: Bearer %s"\n' "$TOKEN" | curl --silent --show-error --config - "${HUBSPOT_API_URL:-https://api.hubapi.com}/crm/objects/2026-09/contacts"
\unset token
\setenv TOKEN
