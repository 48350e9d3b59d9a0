"""The rules, pure: no clock, no I/O, no logging, the standard library only."""
