"""Tests of the whole house: the real resource tree over the real core; only the network is not there."""
