"""The statements that store an install and find it again."""

from __future__ import annotations

from sqlalchemy import text

from shared.db.core.statements import next_number, single_statement

#: One install of a hub at a time, also where the hub has no row yet. A row of our own table, not an advisory lock:
#: every login that can connect may take one of those.
LOCK_HUB = text("""
INSERT INTO tokenkeeper.install_locks (hub_id) VALUES (:hub_id)
ON CONFLICT (hub_id) DO UPDATE SET hub_id = excluded.hub_id
""")
READ = text("""
SELECT clock_timestamp() AS now, known.install_id AS known_install_id,
       EXISTS (SELECT FROM tokenkeeper.uncertain_installs AS u
                WHERE u.connection_id = c.id AND u.is_order_uncertain) AS is_stored_uncertain, c.*
  FROM (SELECT) AS always
  LEFT JOIN tokenkeeper.installs AS known ON known.install_id = CAST(:install_id AS uuid)
  LEFT JOIN LATERAL (
      SELECT id, hub_id, status, status_since, installed_at, install_id, scopes, refreshed_at, lifetime_seconds,
             account_info_due_at, customer
        FROM tokenkeeper.connections
       WHERE hub_id = :hub_id AND app = :app AND user_id IS NOT DISTINCT FROM CAST(:user_id AS bigint)
         FOR NO KEY UPDATE
  ) AS c ON true
""")
REMEMBER = text("""
INSERT INTO tokenkeeper.installs (install_id, connection_id, granted_at)
VALUES (CAST(:install_id AS uuid), :connection_id, :granted_at) ON CONFLICT DO NOTHING
""")
#: The lease stays: a call may be in flight, and no hub may have two. Web's role may not read tokens
#: (shared/db/schema/privileges.py), and `excluded` reads: so the tokens are bound twice.
_WRITE = f"""
INSERT INTO tokenkeeper.connections AS c (
    hub_id, app, user_id, customer, status, status_since, access_token, expires_at, lifetime_seconds, scopes,
    refreshed_at, encrypted_refresh_token, installed_at, install_id, account_info_due_at, due_at)
VALUES (
    :hub_id, :app, :user_id, :customer, 'active', :now, :access_token, :expires_at, :lifetime_seconds, :scopes,
    :refreshed_at, :encrypted_refresh_token, :granted_at, CAST(:install_id AS uuid), :account_info_due_at, :due_at)
ON CONFLICT (hub_id, app, user_id) DO UPDATE
   SET customer = excluded.customer,
       status = 'active',
       status_since = CASE WHEN c.status = 'active' THEN c.status_since ELSE excluded.status_since END,
       status_reason = NULL,
       {{access_columns}}
       lifetime_seconds = excluded.lifetime_seconds,
       scopes = excluded.scopes,
       refreshed_at = excluded.refreshed_at,
       encrypted_refresh_token = :encrypted_refresh_token,
       installed_at = excluded.installed_at,
       install_id = excluded.install_id,
       account_info_due_at = CASE WHEN c.account_info_due_at > :now THEN c.account_info_due_at
                                  ELSE excluded.account_info_due_at END,  -- in the future: a call is in flight
       due_at = excluded.due_at,
       retry_not_before = NULL,
       failures = 0,
       last_error = NULL,
       pending_revocation = NULL,
       refresh_requested = false,
       generation = {next_number("c.generation")}
RETURNING c.id
"""
WRITE = text(_WRITE.format(access_columns="access_token = :access_token, expires_at = excluded.expires_at,"))
#: The stored access token stays.
WRITE_KEEPING_ACCESS_TOKEN = text(_WRITE.format(access_columns=""))
WRITE_HISTORY = text("""
INSERT INTO tokenkeeper.history (app, hub_id, user_id, customer, event, detail, status)
SELECT app, hub_id, user_id, customer, :event, CAST(:detail AS jsonb), :status
  FROM tokenkeeper.connections WHERE id = :connection_id
""")
FIND = single_statement("""
SELECT c.hub_id, a.hub_domain, a.account_name, a.account_type, a.region, c.scopes, c.status, c.customer
  FROM tokenkeeper.installs AS i
  JOIN tokenkeeper.connections AS c ON c.id = i.connection_id
  LEFT JOIN tokenkeeper.accounts AS a ON a.connection_id = c.id
 WHERE i.install_id = CAST(:install_id AS uuid)
""")
IS_CONNECTED = single_statement("""
SELECT EXISTS (SELECT FROM tokenkeeper.connections
                WHERE app = :app AND hub_id = :hub_id AND status IN ('active', 'suspect')) AS is_connected
""")

FIND_LOST = single_statement("""
SELECT given.install_id FROM unnest(CAST(:install_ids AS uuid[])) AS given(install_id)
 WHERE NOT EXISTS (SELECT FROM tokenkeeper.installs AS i WHERE i.install_id = given.install_id)
""")
