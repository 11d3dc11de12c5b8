"""The service: the order in which everything begins and ends."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from txociproxy import __version__
from txociproxy.building import House, build
from txociproxy.config import Config
from txociproxy.draining import ENDS_WITHIN_S, end_house, soon
from txociproxy.introduction import place_of_storage, plain_warning, storage_words, trust_lines
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.options import Options
from txociproxy.process import (
    files_needed,
    keep_even_time,
    leave_at_last,
    leave_at_signals,
    observer_for,
    raise_file_limit,
    starter_of,
    take_reloads,
    take_signals,
    telling,
)
from txociproxy.reload import DoorClosed, Reload
from txociproxy.web.doors import door, parted, place_of
from txociproxy.web.inherited import DoorTrouble, Inherited
from txociproxy.web.site import DoorSite

__all__ = ["Options", "makeService"]

# Then the reactor and the interpreter have their own threads to end.
LAST_S = 5.0
ADMIN = "--admin-listen"


class OCIProxyService(MultiService):
    """Opens the doors and closes them again, everything in its order.

    :param reactor: the reactor of everything.
    :param observer: what writes log lines; None leaves that to ``twistd``.
    :param owns_process: whether signals and limits of the process are ours.
    :param make: makes the house; for tests.
    :param reread: reads the configuration once more; blocks.
    :param tell: tells who has started us why we end before the start is over.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        observer: ILogObserver | None = None,
        owns_process: bool = False,
        make: Callable[[Config, Any], House] = build,
        reread: Callable[[], Config] | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        super().__init__()
        self._config = config
        self._reactor = reactor
        self._observer = observer
        self._owns_process = owns_process
        self._make = make
        self._reread = reread or (lambda: config)
        self._tell = tell
        self._house: House | None = None
        self._reload: Reload | None = None
        self._ports: list[IListeningPort] = []
        self._admin_port: IListeningPort | None = None
        self._inherited = Inherited()

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Say who we are, and write our own log lines from the first one on.

        ``twistd`` calls this just before it begins to log, and repeats what was said before.
        """
        super().setServiceParent(parent)
        if self._observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._observer)
        self._introduce()

    def _introduce(self) -> None:
        """Say version, mode, storage and doors, and who sees clients' credentials (RULES C6)."""
        config = self._config
        self.log.info(
            "starting",
            version=__version__,
            mode=config.mode,
            **storage_words(config),
            doors=",".join(self._doors()),
            default_namespace=config.default_namespace,
        )
        for level, text, namespaces in trust_lines(config):
            self.log.emit(level, text, namespaces=",".join(namespaces))

    def _doors(self) -> list[str]:
        """Return the listeners of all, then those of one upstream, then that of whoever runs the proxy."""
        config = self._config
        beside = (entry.listen for entry in config.upstreams if entry.listen)
        return [*config.listen, *beside, *filter(None, [config.admin_listen])]

    def privilegedStartService(self) -> None:
        """Build everything and open the doors while we may; threads would not survive becoming a daemon before."""
        super().privilegedStartService()
        if self._owns_process:
            leave_at_signals(self._leave_early)
            # From the moment that anybody can connect to us, others can signal us too; until then it would be the end.
            take_reloads(self._reactor, self.reload)
        with telling(self._tell):
            self._open()

    def _leave_early(self, status: int) -> None:
        """End at a signal while nobody is served yet."""
        self._tell("ended by a signal")
        os._exit(status)

    def startService(self) -> None:
        """Make the storage ready, before the reactor runs and anybody is answered."""
        super().startService()
        house = self._open()
        with telling(self._tell):
            try:
                house.storage.prepare(self._config.mode, self._config.adopt_store)
            except StorageUnavailable as error:
                raise SystemExit(f"{place_of_storage(self._config, error)}: {error}") from error
        house.storage.start()
        if self._owns_process:
            leave_at_signals()
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        """Take over the process, and say that clients can come."""
        if self._owns_process:
            take_signals(self._reactor, self._config.drain_timeout_s + ENDS_WITHIN_S)
            self._check_files()
        if self._house is not None and self._house.measuring is not None:
            self._house.measuring.start(self._house)
        if self._house is not None and self._house.door_tls is not None:
            self._house.door_tls.start()
        beside = self._reload.doors.values() if self._reload is not None else ()
        warning = plain_warning(self._config, [*self._ports, *beside])
        if warning is not None:
            self.log.warn(warning)
        ports = [*self._ports, *filter(None, [self._admin_port])]
        self.log.info("listening", doors=",".join(map(place_of, ports)))

    def _check_files(self) -> None:
        """Take as many descriptors as we may, and say so if the caps need more."""
        needed = files_needed(self._config)
        allowed = raise_file_limit(needed)
        if allowed < needed:
            self.log.warn(
                "only {allowed} files may be open, the configured limits may need {needed}; "
                "raise that (LimitNOFILE=, ulimit -n) or lower --max-connections",
                allowed=int(allowed),
                needed=needed,
            )

    def _open(self) -> House:
        """Build the house, once."""
        if self._house is None:
            try:
                house = self._house = self._make(self._config, self._reactor)
                self._inherited = Inherited.of_process()
                self._ports = [self._listen(place, house.site) for place in self._config.listen]
                beside = [entry.listen for entry in self._config.upstreams if entry.listen is not None]
                doors = {place: self._listen(place, house.site.beside(place)) for place in beside}
                if house.admin is not None and self._config.admin_listen is not None:
                    self._admin_port = self._listen(self._config.admin_listen, house.admin, ADMIN)
            except (DoorClosed, ValueError) as error:
                raise SystemExit(str(error)) from error
            self._reload = Reload(
                self._config,
                lambda: house.in_thread(self._reread),
                house.turn_to,
                lambda place: self._listen(place, house.site.beside(place)),
                doors,
            )
        return self._house

    def reload(self) -> None:
        """Read the configuration again (SIGHUP)."""
        if self._reload is not None:
            self._reload.begin()
        if self._house is not None and self._house.door_tls is not None:
            self._house.door_tls.reload()

    def _listen(self, place: str, site: DoorSite, option: str = "--listen") -> IListeningPort:
        """Open one door.

        :raises DoorClosed: it cannot be opened.
        """
        ports: list[IListeningPort] = []
        failures: list[Failure] = []
        site.noisy = False  # we say ourselves where we listen
        tls, mode = None if self._house is None else self._house.door_tls, None
        if option == ADMIN:  # plain unless said, and a Unix socket is its owner's only (RULES G5)
            tls, mode = tls if parted(place)[0] == "https" else None, 0o600
        opening = door(self._reactor, place, tls, self._inherited, mode).listen(site)
        opening.addCallbacks(ports.append, failures.append)
        for failure in failures:
            if failure.check(DoorTrouble):
                raise DoorClosed(f"{option}: {place!r}: {failure.getErrorMessage()}")
            failure.trap(CannotListenError, OSError)
            raise DoorClosed(f"{option}: {place!r}: {failure.getErrorMessage()}; choose another address or port")
        return ports[0]

    def stopService(self) -> Deferred[None]:
        """End in order: doors, running answers, ingests, uploads, connections, threads."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        began_s = self._reactor.seconds()
        await _fired(super().stopService())
        house, self._house = self._house, None
        if house is not None:
            house.readiness.draining = True
        await self._close_doors()
        if house is None:
            return
        if house.door_tls is not None:
            house.door_tls.stop()
        await end_house(house, self._reactor, self._config.drain_timeout_s, self._close_admin)
        if self._owns_process:
            leave_at_last(LAST_S)
        self.log.info("stopped", seconds=f"{self._reactor.seconds() - began_s:.1f}")

    async def _close_doors(self) -> None:
        """Let nobody in any more; the door of whoever runs the proxy stays open."""
        ports, self._ports = self._ports, []
        reload, self._reload = self._reload, None
        if reload is not None:
            reload.stop()
            ports = [*ports, *reload.doors.values()]
        for port in ports:
            await soon(self._reactor, port.stopListening)

    def _close_admin(self) -> object:
        admin, self._admin_port = self._admin_port, None
        return None if admin is None else admin.stopListening()


async def _fired(result: object) -> None:
    """Wait for what may be a Deferred."""
    if isinstance(result, Deferred):
        await result


def makeService(options: Options, reactor: Any = None) -> OCIProxyService:
    """Make the service that ``twistd ociproxy`` runs."""
    twistd = options.parent
    if reactor is None:
        from twisted.internet import reactor
    if twistd is not None:
        keep_even_time(reactor)
    observer = observer_for(twistd, options.config.log_level, options.config.log_format, options.config.journal_stream)
    owns_process, tell = twistd is not None, starter_of(twistd)
    return OCIProxyService(options.config, reactor, observer, owns_process, reread=options.reread, tell=tell)
