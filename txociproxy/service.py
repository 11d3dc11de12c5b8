"""The only place that says "new"."""

from txociproxy.options import Options

__all__ = ["Options"]
