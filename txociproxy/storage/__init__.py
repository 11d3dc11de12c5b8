"""Where content is kept.  Implementations of IStorage do not know each other."""
