"""End to end: the real ``twistd``, a real registry or a scripted one, and real clients, all on loopback.

Servers and ports belong to one test and end with it.  ``make e2e`` runs everything here; ``.ci/run`` names the
Debian packages that must be there, and the container engines want root.
"""
