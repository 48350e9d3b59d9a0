"""The benchmark: `make bench`. Everything that it compares runs in one go, on one machine, against one HubSpot."""
