-- Rows for schema_0_1.sql: in every table, and every column has a value in at least one row.
INSERT INTO tokenkeeper.connections (hub_id, status, status_since, status_reason, access_token, expires_at, life, scopes,
    refreshed_at, sealed_refresh_token, installed_at, install_id, identify_due_at, due_at, not_before, failures, last_error,
    refresh_requested, condemned, lease_until, lease_no, generation, revocation_told)
VALUES (1, 'suspect', now() - interval '1 day', 'held by the revocation brake', 'access', now() + interval '20 minutes', 1800,
        '{oauth,crm.objects.contacts.read}', now() - interval '10 minutes', 'encrypted', now() - interval '2 days',
        gen_random_uuid(), now(), now() + interval '5 minutes', now() + interval '1 minute', 3, 'BAD_REFRESH_TOKEN', true,
        '{"code": "BAD_REFRESH_TOKEN"}', now() + interval '1 minute', 7, 2, false),
       (2, 'revoked', now(), 'dead', NULL, NULL, 1800, '{}', NULL, 'encrypted', NULL, NULL, NULL, NULL, NULL, 1, NULL, false,
        NULL, NULL, 1, 0, true),
       (3, 'disconnected', now(), NULL, NULL, NULL, NULL, '{}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, false,
        NULL, NULL, 0, 1, false);
UPDATE tokenkeeper.accounts SET hub_domain = 'Acme.example', installed_by = 'mia@acme.example' WHERE hub_id = 1;
INSERT INTO tokenkeeper.history (hub_id, event, detail, status)
VALUES (1, 'installed', '{"scopes": []}', 'active'), (1, 'refresh_failed', '{}', NULL), (2, 'revoked', '{}', 'revoked');
INSERT INTO tokenkeeper.installs (install_id, hub_id, granted_at) VALUES (gen_random_uuid(), 1, now());
INSERT INTO tokenkeeper.alerts (kind, recovered, subject, detail, logged_at, due_at, attempts, lease_until, stands_for,
    delivered_at)
VALUES ('provider', true, 'subject', '{"state": "ok"}', now(), now(), 2, now(), 4, now()),
       ('connection_revoked', false, '', '{}', NULL, NULL, 0, NULL, 0, NULL);
UPDATE tokenkeeper.provider SET condition = 'throttled', reason = 'throttled', silent = 2, refused = 3, paused_until = now(),
    rate = 0.1, allowance = 0.5, swept_at = now(), last_success_at = now(), brake_since = now(), brake_reset_at = now();
INSERT INTO tokenkeeper.minutes VALUES (date_trunc('minute', now()), 12, 3);
INSERT INTO tokenkeeper.tally VALUES ('attempts', 'refreshed', 12), ('lateness_seconds', '', 1.5);
UPDATE tokenkeeper.pruned SET at = now();
INSERT INTO tokenkeeper.key_check (sealed) VALUES ('encrypted');
-- As 0.1.0 grants them where the group roles exist.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'tokenkeeper_web') THEN
        GRANT SELECT (hub_id, life, not_before, condemned), UPDATE (sealed_refresh_token) ON tokenkeeper.connections
            TO tokenkeeper_web;
        GRANT SELECT, UPDATE ON tokenkeeper.totals TO tokenkeeper_web;
        GRANT EXECUTE ON FUNCTION tokenkeeper.holds_refresh_token(bigint) TO tokenkeeper_web;
        GRANT ALL ON ALL TABLES IN SCHEMA tokenkeeper TO tokenkeeper_worker;
    END IF;
END
$$;
