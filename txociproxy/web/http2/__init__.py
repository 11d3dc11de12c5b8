"""HTTP/2 at our doors: what h2 leaves to its user, with bounds on all that a client can make us hold or do."""
