"""Whom we believe over TLS, and who we say we are: per entry, and only toward its own origins (RULES F3).

Twisted's interface of trust roots is called private; it is used here because its public one replaces the system's
certificates, and ours come beside them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from attrs import define, field, frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet._sslverify import IOpenSSLTrustRoot  # private, see above
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from txociproxy.remembering import remember
from txociproxy.upstreams.connecting.tls_files import TlsFiles
from txociproxy.upstreams.entries.entry import Entry, Tls
from txociproxy.upstreams.origins import Origin

# Contexts are made once per host: a connection that must make its own (measured) waits 3 ms for it, on the reactor.
MAX_TLS_HOSTS = 256


@implementer(IPolicyForHTTPS)
@define(eq=False)
class SystemTrust:
    """TLS by the system's trust, or another policy, with one context per host."""

    _policy: IPolicyForHTTPS = field(factory=BrowserLikePolicyForHTTPS)
    _creators: OrderedDict[bytes, IOpenSSLClientConnectionCreator] = field(init=False, factory=OrderedDict)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        """Return what makes TLS connections to this host."""
        creator = self._creators.get(hostname)
        if creator is None:
            creator = self._policy.creatorForNetloc(hostname, port)
        remember(self._creators, hostname, creator, MAX_TLS_HOSTS)
        return creator


def check_tls(tls: Tls) -> None:
    """See whether the files can be used, without network; blocks.

    :raises ValueError: one line with key and file.
    """
    TlsFiles.read(tls)


def trust_of(entry: Entry, files: TlsFiles | None, system: IPolicyForHTTPS) -> IPolicyForHTTPS:
    """Return whom an entry believes.

    :param files: what its ``tls`` names; None if it has none.
    :param system: for everybody who has nothing of his own.
    """
    if entry.tls is None or files is None:
        return system
    root = _SystemAnd(files.authorities)
    elsewhere = SystemTrust(_Verified(root, {})) if files.authorities else system
    own = SystemTrust(_Verified(root, files.identity())) if entry.tls.verify else _Unverified(files.identity())
    origins = frozenset(Origin.of(url) for url in (*entry.urls, *entry.origins))
    return _EntryTrust(origins, own, elsewhere)


@implementer(IPolicyForHTTPS)
@frozen
class _EntryTrust:
    """What is configured counts for the entry's own origins, and for no other (RULES F3)."""

    _origins: frozenset[Origin]
    _own: IPolicyForHTTPS
    _elsewhere: IPolicyForHTTPS

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        origin = Origin("https", hostname.decode("ascii").lower().removesuffix("."), port)
        policy = self._own if origin in self._origins else self._elsewhere
        return policy.creatorForNetloc(hostname, port)


@implementer(IOpenSSLTrustRoot)
@frozen
class _SystemAnd:
    """The system's authorities, and some more."""

    _authorities: tuple[x509.Certificate, ...]

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        platformTrust()._addCACertsToContext(context)
        store = context.get_cert_store()
        assert store is not None
        for authority in self._authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))


@implementer(IPolicyForHTTPS)
@frozen
class _Verified:
    """Names and addresses of certificates are compared with the host; no TLS below 1.2."""

    _root: _SystemAnd
    _identity: dict[str, Any] = field(repr=False)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        creator: IOpenSSLClientConnectionCreator = optionsForClientTLS(
            hostname.decode("ascii"), self._root, extraCertificateOptions=dict(self._identity)
        )
        return creator


@implementer(IPolicyForHTTPS)
class _Unverified:
    """Any certificate will do (``verify: false``)."""

    def __init__(self, identity: dict[str, Any]) -> None:
        self._options = CertificateOptions(**identity)

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:
        return _UnverifiedCreator(self._options, hostname)


@implementer(IOpenSSLClientConnectionCreator)
@frozen
class _UnverifiedCreator:
    """Sends the server's name all the same: one address may serve many (RFC 6066 §3)."""

    _options: CertificateOptions
    _hostname: bytes

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        connection = self._options.clientConnectionForTLS(tlsProtocol)
        name = self._hostname.decode("ascii")
        if not isIPAddress(name) and not isIPv6Address(name):
            connection.set_tlsext_host_name(self._hostname)
        return connection
