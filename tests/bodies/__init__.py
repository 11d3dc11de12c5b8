"""Tests of bodies that are here, and of the Reader that carries them."""
