"""The benchmark, `make bench`: everything that it compares runs in one go, on one machine, against one HubSpot."""
