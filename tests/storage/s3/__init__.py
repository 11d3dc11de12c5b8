"""Storage in a bucket."""
