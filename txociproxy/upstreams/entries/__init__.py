"""Entries: what is configured about upstreams, how it is read, and which one a request means."""
