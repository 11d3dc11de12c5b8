"""The command ``ociproxy``: what a person does beside running the proxy."""
