"""A HubSpot simulator over HTTP: consent page, tokens, introspection, uninstalls, and faults on request."""
