"""A HubSpot to try things on: consent page, tokens, introspection, uninstall, and every way in which they fail."""
