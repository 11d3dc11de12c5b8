"""A pull-through cache for OCI container registries, built on Twisted."""

__version__ = "0.1.0"
