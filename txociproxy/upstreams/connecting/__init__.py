"""Connecting: the way to an address that may be connected to, and one request over it."""
