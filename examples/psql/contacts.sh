#!/bin/sh
# Prints an account's contacts: contacts.sh HUB
#
# The connection is configured by psql's variables: PGHOST, PGDATABASE, PGUSER, PGPASSWORD, or PGSERVICE and ~/.pgpass.
# curl reads the token from its standard input, because `ps` shows arguments to every user.
set -eu

api=${HUBSPOT_API_URL:-https://api.hubapi.com}
hub=${1:-}
case $hub in
'' | *[!0-9]*)
    echo "usage: contacts.sh HUB (an account's number)" >&2
    exit 2
    ;;
esac

run_sql() {
    psql --no-psqlrc --quiet --no-align --tuples-only --set ON_ERROR_STOP=1 --set hub="$hub"
}

token=$(echo "SELECT access_token FROM hubspot.tokens WHERE hub_id = :'hub'" | run_sql)
if [ -z "$token" ]; then
    status=$(echo "SELECT status FROM hubspot.connections WHERE hub_id = :'hub'" | run_sql)
    echo "account $hub has no token that works now: ${status:-never installed}" >&2
    exit 1
fi

# printf is built into the shell: it starts no process that `ps` could show
printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl --silent --show-error --fail-with-body --max-time 30 --write-out '\n' --config - "$api/crm/objects/2026-09/contacts"
