"""Bodies that are all here, and the Reader, the only thing that writes bodies to clients."""
