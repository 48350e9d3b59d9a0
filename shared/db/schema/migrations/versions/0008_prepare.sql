-- What revision 0008 can do while everything runs: see 0005_prepare.sql.

-- step: history_of_scope_changes
CREATE INDEX CONCURRENTLY IF NOT EXISTS history_of_scope_changes
    ON tokenkeeper.history (app, at) WHERE event = 'scopes_changed';
