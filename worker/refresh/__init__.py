"""The refresh loop of one app in one pool process. Begin at `loop`."""
