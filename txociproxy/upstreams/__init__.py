"""Who has the original: the table of namespaces, connections, redirects, tokens."""
