"""The certificate of the doors: new connections get the newest good one, running ones go on with theirs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from attrs import define, field, frozen
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger, LogLevel
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txociproxy.interfaces import IWorkers
from txociproxy.web.tls.files import TlsPaths, TlsTrouble
from txociproxy.web.tls.identity import Identity
from txociproxy.web.tls.transport import TlsFactory

POLL_S: Final = 5.0
SOON: Final = timedelta(days=14)
AGAIN_S: Final = 24 * 3600.0
EXPIRES_SOON: Final = "the certificate expires soon"
EXPIRED: Final = "the certificate has expired; put a new one in its place"


@implementer(IOpenSSLServerConnectionCreator)
@define(eq=False)
class DoorTls:
    """Gives each new connection the certificate of the moment.

    The files are read again and again, rather than their dates: that sees the swapped directories of Kubernetes, a
    copy that kept its dates, and file systems that tell old ones.

    :ivar _paths: what is read again.
    :ivar _made: the certificate that is in no file; None where it is in files.
    :ivar _workers: threads in which files are read.
    :ivar _clock: for the polls.
    :ivar _now: seconds since the epoch.
    :ivar handshake_s: how long a client may take until TLS is agreed upon.
    """

    _paths: TlsPaths
    _made: Identity | None
    _workers: IWorkers
    _clock: IReactorTime
    _now: Callable[[], float]
    handshake_s: float
    _identity: Identity = field(init=False)
    _mark: bytes = field(init=False)
    _options: CertificateOptions = field(init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _looking: Deferred[None] | None = field(default=None, init=False)
    _insisting: bool = field(default=False, init=False)
    _told_end: tuple[str, float] = field(default=("", 0.0), init=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        """Read what there is; blocks, and is for the start.

        :raises TlsTrouble: it cannot be used.
        """
        contents = self._paths.read()
        self._mark = contents.mark()
        self._identity = contents.identity(self._made)
        self._options = self._identity.options()

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Begin one connection; a certificate that comes later does not change it."""
        return self._options.serverConnectionForTLS(protocol)

    def wrapped(self, factory: IProtocolFactory) -> TlsFactory:
        """Return what listens in place of this factory."""
        return TlsFactory(self, factory, self._clock, self.handshake_s)

    def start(self) -> None:
        """Say which certificate there is, and look from now on for another."""
        self._tell("certificate of the doors")
        if self._made is not None:
            self.log.warn("the certificate was made at this start and is in no file; this is for development only")
        self._tick()

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call, looking = None, self._looking
        if looking is not None:
            looking.cancel()

    def reload(self) -> None:
        """Look now, and say what is wrong even if that was said before (SIGHUP)."""
        self._insisting = True
        self._look()

    def _tick(self) -> None:
        """Look, and again after a while."""
        self._call = self._clock.callLater(POLL_S, self._tick)
        self._tell_end()
        self._look()

    def _look(self) -> None:
        """Read the files in a thread, once at a time."""
        if self._looking is None and self._paths != TlsPaths():
            self._looking = Deferred.fromCoroutine(self._take_what_is_there())
            self._looking.addBoth(self._looked)

    def _looked(self, result: object) -> None:
        self._looking = None
        if isinstance(result, Failure):
            if result.check(CancelledError) is None:
                self.log.failure("looking for another certificate failed", result)
        elif self._insisting:
            self._look()  # it was asked for while we read

    async def _take_what_is_there(self) -> None:
        known, self._insisting = None if self._insisting else self._mark, False
        mark, found = await self._workers.run(_look_at, self._paths, self._made, known)
        if found is None:
            return
        self._mark = mark
        if isinstance(found, TlsTrouble):
            self.log.warn("the certificate is not taken, the old one stays: {setting}: {reason}", **_words(found))
            return
        is_other = found.chain != self._identity.chain or found.authorities != self._identity.authorities
        self._identity, self._options = found, found.options()
        self._told_end = ("", 0.0)
        self._tell("another certificate is taken" if is_other else "certificate of the doors")
        self._tell_end()

    def _tell(self, text: str) -> None:
        found = self._identity
        until = found.expires.isoformat()
        self.log.info(text, names=",".join(found.names()), expires=until, sha256=found.fingerprint())

    def _tell_end(self) -> None:
        """Say once a day that a certificate ends soon, and that it has ended, which is an error."""
        text, (told, told_s), now_s = self._about_end(), self._told_end, self._now()
        if text is None or (text == told and now_s - told_s < AGAIN_S):
            return
        self._told_end = text, now_s
        level = LogLevel.error if text == EXPIRED else LogLevel.warn
        until = self._identity.expires.isoformat()
        self.log.emit(level, text, names=",".join(self._identity.names()), expires=until)

    def _about_end(self) -> str | None:
        """Return what is to be said about the end; None for nothing."""
        left = self._identity.expires - datetime.fromtimestamp(self._now(), UTC)
        if left > SOON:
            return None
        return EXPIRES_SOON if left > timedelta(0) else EXPIRED


def _words(trouble: TlsTrouble) -> dict[str, str]:
    return {"setting": trouble.setting, "reason": str(trouble)}


def _look_at(paths: TlsPaths, made: Identity | None, known: bytes | None) -> tuple[bytes, Identity | TlsTrouble | None]:
    """Return a mark of what stands in the files and what it is; None if it is what is known already.  Blocks."""
    try:
        contents = paths.read()
    except TlsTrouble as trouble:
        mark = hashlib.sha256(str(trouble).encode()).digest()
        return mark, None if mark == known else trouble
    mark = contents.mark()
    if mark == known:
        return mark, None
    try:
        return mark, contents.identity(made)
    except TlsTrouble as trouble:
        return mark, trouble


@implementer(IStreamServerEndpoint)
@frozen
class TlsEndpoint:
    """Decorates an endpoint so that its connections speak TLS."""

    _endpoint: IStreamServerEndpoint
    _tls: DoorTls

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen as the decorated endpoint does."""
        return self._endpoint.listen(self._tls.wrapped(protocolFactory))
