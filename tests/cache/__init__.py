"""Tests of the core: paths, tags, flights, bounds."""
