"""The service: the order in which everything begins and ends."""

# Twisted leaves these base classes untyped, and mypy takes their methods for ours.
# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import IServiceCollection, MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from txociproxy import __version__
from txociproxy.building import House, build
from txociproxy.config import Config
from txociproxy.introduction import is_public, place_of_storage, storage_words, trust_lines
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.options import Options
from txociproxy.process import keep_even_time, observer_for, raise_file_limit, take_reloads, take_signals
from txociproxy.reload import DoorClosed, Reload
from txociproxy.web.doors import door, place_of
from txociproxy.web.site import DoorSite

__all__ = ["Options", "makeService"]

POLL_S = 0.1
# A server that does not let go of a connection, or a bucket that does not answer, does not hold up the end.
CLOSE_S = 3.0


class OCIProxyService(MultiService):
    """Opens the doors and closes them again, everything in its order.

    :param reactor: the reactor of everything.
    :param observer: what writes log lines; None leaves that to ``twistd``.
    :param owns_process: whether signals and limits of the process are ours.
    :param make: makes the house; for tests.
    :param reread: reads the configuration once more; blocks.
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
    ) -> None:
        super().__init__()
        self._config = config
        self._reactor = reactor
        self._observer = observer
        self._owns_process = owns_process
        self._make = make
        self._reread = reread or (lambda: config)
        self._house: House | None = None
        self._reload: Reload | None = None
        self._ports: list[IListeningPort] = []

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
        """Return the listeners of all, then those of one upstream."""
        return [*self._config.listen, *(entry.listen for entry in self._config.upstreams if entry.listen)]

    def privilegedStartService(self) -> None:
        """Build everything and open the doors while we may; threads would not survive becoming a daemon before."""
        super().privilegedStartService()
        if self._owns_process:
            # From the moment that anybody can connect to us, others can signal us too; until then it would be the end.
            take_reloads(self._reactor, self.reload)
        self._open()

    def startService(self) -> None:
        """Make the storage ready, before the reactor runs and anybody is answered."""
        super().startService()
        house = self._open()
        try:
            house.storage.prepare(self._config.mode, self._config.adopt_store)
        except StorageUnavailable as error:
            raise SystemExit(f"{place_of_storage(self._config, error)}: {error}") from error
        house.storage.start()
        self._reactor.callWhenRunning(self._running)

    def _running(self) -> None:
        """Take over the process, and say that clients can come."""
        if self._owns_process:
            raise_file_limit()
            take_signals(self._reactor)
        if self._house is not None and self._house.measuring is not None:
            self._house.measuring.start(self._house)
        if self._config.mode == "authenticated" and any(map(is_public, self._ports)):
            self.log.warn("passwords and tokens cross the network in plain HTTP; put a TLS proxy in front")
        self.log.info("listening", doors=",".join(place_of(port) for port in self._ports))

    def _open(self) -> House:
        """Build the house, once."""
        if self._house is None:
            try:
                house = self._house = self._make(self._config, self._reactor)
                self._ports = [self._listen(place, house.site) for place in self._config.listen]
                beside = [entry.listen for entry in self._config.upstreams if entry.listen is not None]
                doors = {place: self._listen(place, house.site.beside(place)) for place in beside}
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

    def _listen(self, place: str, site: DoorSite) -> IListeningPort:
        """Open one door.

        :raises DoorClosed: it cannot be opened.
        """
        ports: list[IListeningPort] = []
        failures: list[Failure] = []
        site.noisy = False  # we say ourselves where we listen
        door(self._reactor, place).listen(site).addCallbacks(ports.append, failures.append)
        for failure in failures:
            failure.trap(CannotListenError, OSError)
            raise DoorClosed(f"--listen: {place!r}: {failure.getErrorMessage()}; choose another address or port")
        return ports[0]

    def stopService(self) -> Deferred[None]:
        """End in order: doors, running answers, ingests, uploads, connections, threads."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await _fired(super().stopService())
        ports, self._ports = self._ports, []
        if self._reload is not None:
            self._reload.stop()
            ports = [*ports, *self._reload.doors.values()]
        for port in ports:
            await _fired(port.stopListening())
        house, self._house = self._house, None
        if house is None:
            return
        house.readiness.draining = True
        house.site.census.drain()
        await self._answers_end(house)
        if house.measuring is not None:
            house.measuring.stop()
        house.ingests.abandon_all()
        await self._soon(house.storage.stop())
        if house.ways is not None:
            await self._soon(house.ways.stop())
        await self._soon(house.upstreams.stop())
        for pool in house.pools:
            pool.stop()

    async def _soon(self, ending: Deferred[None]) -> None:
        """Wait for an end, within bounds; whatever comes of it, the rest has to end too."""
        ending.addTimeout(CLOSE_S, self._reactor, lambda *_: None)
        await ending.addErrback(lambda failure: self.log.failure("something did not end well", failure))

    async def _answers_end(self, house: House) -> None:
        """Wait for running answers, within bounds; what still runs then is cut by the end of the process."""
        left_s = self._config.drain_timeout_s
        while left_s > 0 and house.site.resource.running:
            left_s -= POLL_S
            await deferLater(self._reactor, POLL_S)


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
    observer = observer_for(twistd, options.config.log_level)
    return OCIProxyService(options.config, reactor, observer, owns_process=twistd is not None, reread=options.reread)
