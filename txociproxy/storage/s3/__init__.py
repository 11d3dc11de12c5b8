"""Content in a bucket that many proxies share; what is not in it yet waits on the local disk."""
