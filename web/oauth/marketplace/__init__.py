"""Installs that HubSpot's Marketplace begins. Begin at `pages`."""
