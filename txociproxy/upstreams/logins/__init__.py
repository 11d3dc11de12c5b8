"""Logins: where the proxy's own credentials come from, and how long they are kept."""
