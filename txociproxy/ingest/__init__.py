"""One arriving body: received once, proven, followed by any number of readers, kept by the storage."""
