-- Connect links and states of Marketplace installs that an installation has used (docs/adr/0034, 0035).
CREATE TABLE tokenkeeper.single_uses (
    kind       text COLLATE "C" NOT NULL,     -- link, state
    id         text COLLATE "C" NOT NULL,     -- of a link its `jti`
    used_by    uuid NOT NULL,                 -- the first install that came by it
    expires_at timestamptz NOT NULL,          -- from then on it is refused for that alone
    used_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, id)
);
CREATE INDEX single_uses_expired ON tokenkeeper.single_uses (expires_at);  -- pruning
