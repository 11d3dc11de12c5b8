"""The language of the distribution spec: pure values and text.  No Twisted, no I/O, no clock."""
