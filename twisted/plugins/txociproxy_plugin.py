"""Makes ``twistd ociproxy`` known.

Every ``twistd`` call on the machine imports this file, so it names its modules and imports none of them.
"""

from twisted.application.service import ServiceMaker

ociproxy = ServiceMaker(
    "Txociproxy",
    "txociproxy.service",
    "A pull-through cache for OCI container registries.",
    "ociproxy",
)
