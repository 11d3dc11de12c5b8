"""The command ``ociproxy``."""
