"""Packaging of txociproxy; tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
HTPASSWD = ["bcrypt >= 4.1, < 6"]  # passwords at our own door (htpasswd_file); imported only when it is used
AWS = ["boto3 >= 1.36, < 2"]  # logins for ECR, storage in S3; imported only when it is used


def version() -> str:
    """Read the version without importing the package, whose dependencies are not installed yet."""
    found = re.search(r'^__version__ = "([^"]+)"$', (HERE / "txociproxy/__init__.py").read_text("utf-8"), re.M)
    assert found, "txociproxy/__init__.py has lost its version"
    return found.group(1)


setup(
    name="txociproxy",
    version=version(),
    description="A pull-through cache for OCI container registries, built on Twisted",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    # twisted.plugins has no __init__.py on purpose: Twisted collects that folder from all of sys.path.
    packages=[*find_packages(include=["txociproxy", "txociproxy.*"]), "twisted.plugins"],
    package_data={"twisted": ["plugins/txociproxy_plugin.py"], "txociproxy": ["py.typed"]},
    install_requires=[
        "twisted[tls] >= 26.10, < 28",  # server, client, twistd; private seams of HTTP/1.1 differ before
        "h2 >= 4.2, < 5",  # HTTP/2 at our doors: frames and states; the connection is our own, not Twisted's
        "hpack >= 4.1, < 5",  # h2 brings it; what a client may make it decode is bounded by us
        "treq >= 25.5, < 28",  # drives the real doors in memory in the tests; never for bodies, which it would decode
        "attrs >= 23.2",  # values and classes
        "zope.interface >= 6",  # the seams; Twisted brings it, but we import it ourselves
        "pyopenssl >= 25.3, < 28",  # TLS to upstreams, with own trust and client certificates per upstream
        "service-identity >= 23.1",  # without it Twisted does not check host names
        "cryptography >= 43",  # AES-GCM for the tokens that we hand to clients, and certificates of our own making
        "prometheus-client >= 0.21, < 1",  # /metrics
        "PyYAML >= 6.0.1, < 7",  # the configuration file; 6.0 itself does not build on today's Python
        # Which hosts belong together (a token server may be another host of the same owner); works without network.
        "publicsuffixlist >= 1.0.2.20241001",
    ],
    extras_require={
        "aws": AWS,
        "s3": AWS,  # as it was called first
        "htpasswd": HTPASSWD,
        "dev": [
            *AWS,
            *HTPASSWD,
            # An S3 server within the tests' own process.  Its extra for servers brings a dozen more for other services.
            "moto[s3] >= 5.2, < 6",
            "flask >= 3, < 4",  # without these two its server does not start
            "flask-cors >= 5, < 7",
            "mypy >= 2.4, < 2.5",  # mypy-zope is made for exactly one series of mypy
            "mypy-zope == 1.0.17",
            "types-PyYAML",
            "ruff >= 0.17, < 0.18",  # a formatter that changes its mind is pinned
            "hypothesis >= 6.100",
            "coverage >= 7.6",
        ],
    },
    entry_points={"console_scripts": ["ociproxy = txociproxy.cli.main:main"]},
    zip_safe=False,  # twistd finds plugins in folders
    classifiers=[
        "Framework :: Twisted",
        "Programming Language :: Python :: 3.11",
        "Operating System :: POSIX :: Linux",
    ],
)
