"""The door of whoever runs the proxy: beside the others, and the last to be closed (RULES G5)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from tests.test_service import Stage, config
from tests.web.doubles import Line
from txociproxy.building import House, build
from txociproxy.metrics import CAPS
from txociproxy.service import OCIProxyService
from txociproxy.web.making import ADMIN_LIMITS, make_admin
from txociproxy.web.pages import Pages
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import DoorSite
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made
from txociproxy.web.tls.transport import TlsFactory

PLACE = "127.0.0.1:9090"


class _AdminTaken(MemoryReactorClock):
    """A machine on which one port is taken."""

    def listenTCP(self, port: int, *rest: Any, **more: Any) -> Any:
        """Refuse it."""
        if port == 9090:
            raise CannotListenError("127.0.0.1", port, OSError(98, "Address already in use"))
        return super().listenTCP(port, *rest, **more)


class AdminDoorTests(SynchronousTestCase):
    """A service with two doors."""

    def setUp(self) -> None:
        """Have nothing open."""
        self.stage = Stage()
        self.reactor = MemoryReactorClock()

    def house(self, *_: object) -> House:
        """Return a house of the stage, with an admin door."""
        house = self.stage.house()
        settings = WebSettings()
        pages = Pages(house.readiness.trouble, house.metrics.exposition)
        house.admin = make_admin(self.reactor, settings, self.reactor.seconds, house.metrics, pages)
        self.admin = house.admin
        return house

    def service(self, place: str = PLACE) -> OCIProxyService:
        """Return a service whose first step is done."""
        service = OCIProxyService(config(OCIPROXY_ADMIN_LISTEN=place), self.reactor, make=self.house)
        service.privilegedStartService()
        return service

    def test_it_is_opened_beside_the_others(self) -> None:
        """With a site of its own."""
        service = self.service()
        service.startService()
        listening = {server[0]: server[1] for server in self.reactor.tcpServers}
        self.assertEqual(set(listening), {8080, 9090})
        self.assertIn(self.admin, (listening[9090], getattr(listening[9090], "wrappedFactory", None)))

    def test_its_socket_is_for_the_owner_only(self) -> None:
        """Mode 0600; the doors of clients are as Twisted makes them."""
        path = self.mktemp()
        self.service(f"unix:/{path}")
        self.assertEqual([(server[0], server[3]) for server in self.reactor.unixServers], [(f"/{path}", 0o600)])

    def test_it_speaks_tls_only_if_that_is_said(self) -> None:
        """Whatever the doors of clients do."""
        for place, expected in ((PLACE, False), (f"http://{PLACE}", False), (f"https://{PLACE}", True)):
            self.stage, self.reactor = Stage(), MemoryReactorClock()
            made = self_made([], datetime.now(UTC))
            tls = DoorTls(TlsPaths(), made, InlineWorkers(), self.reactor, time.time, 20)

            def house(*_: object, tls: DoorTls = tls) -> House:
                house = self.house()
                house.door_tls = tls
                return house

            plain = evolve(config(OCIPROXY_ADMIN_LISTEN=PLACE), admin_listen=place)
            OCIProxyService(plain, self.reactor, make=house).privilegedStartService()
            factories = {server[0]: server[1] for server in self.reactor.tcpServers}
            self.assertEqual(isinstance(factories[9090], TlsFactory), expected, place)

    def test_it_is_named_where_doors_are_named(self) -> None:
        """In the first line, and when clients can come."""
        with capturedLogs() as events:
            service = self.service()
            service.startService()
            service._introduce()
            self.reactor.running = True
            for call, args, kwargs in self.reactor.whenRunningHooks:
                call(*args, **kwargs)
        doors = {event["log_format"]: event["doors"] for event in events if "doors" in event}
        self.assertEqual(doors["starting"], f"127.0.0.1:8080,{PLACE}")
        self.assertEqual(doors["listening"], "0.0.0.0:8080,0.0.0.0:9090")  # as a reactor in memory names them

    def test_whoever_looks_is_no_client(self) -> None:
        """Its places are few and its own; that they are taken says nothing of the caps of clients."""
        house = self.house()
        lines = [Line(site=self.admin) for _ in range(ADMIN_LIMITS.max_connections + 1)]
        self.assertTrue(lines[-1].send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 503 "))
        self.assertNotIn(b"ociproxy_caps_reached_total{", house.metrics.exposition())

    def test_one_that_cannot_be_opened_is_one_line(self) -> None:
        """It names the option that is wrong."""
        self.reactor = _AdminTaken()
        told = str(self.assertRaises(SystemExit, self.service))
        self.assertRegex(told, r"^--admin-listen: '127\.0\.0\.1:9090': .*in use.*; choose another address or port$")

    def test_it_is_closed_last(self) -> None:
        """Until then it can be seen how the end goes on."""
        service = self.service()
        service.startService()
        closed: list[str] = []
        assert service._admin_port is not None
        service._admin_port.stopListening = lambda: closed.append("admin")  # type: ignore[method-assign]
        self.stage.running, self.stage.storage_end = 1, Deferred()
        ended = service.stopService()
        self.reactor.advance(1)
        self.stage.running = 0
        self.reactor.advance(1)
        self.assertEqual((closed, self.admin.census.draining), ([], False))
        self.stage.storage_end.callback(None)
        self.successResultOf(ended)
        self.assertEqual((closed, self.admin.census.draining), (["admin"], True))

    def test_without_the_option_there_is_none(self) -> None:
        """Pages are on the doors of clients then."""
        service = OCIProxyService(config(), self.reactor, make=self.stage.house)
        service.privilegedStartService()
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [8080])
        self.assertIsNone(service._admin_port)

    def test_clients_places_are_not_its_places(self) -> None:
        """A scraper does not count, and is not kept out by those who do."""
        self.service()
        self.assertIsInstance(self.admin, DoorSite)
        self.assertIsNot(self.admin.census, self.stage.census)


class HouseTests(SynchronousTestCase):
    """What a configuration makes of it."""

    def built(self, **environ: str) -> House:
        """Return a house that was never opened."""
        house = build(config(FS_ROOT=self.mktemp(), **environ), MemoryReactorClock())
        for pool in house.pools:
            self.addCleanup(pool.stop)
        return house

    def test_metrics_are_at_one_place(self) -> None:
        """With the option only there, without it on the doors of clients."""
        for environ, status in (({}, 200), ({"OCIPROXY_ADMIN_LISTEN": PLACE}, 404)):
            house = self.built(**environ)
            line = Line(site=house.site)
            line.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.assertEqual((line.status, house.admin is None), (status, status == 200))
            if house.admin is not None:
                line = Line(site=house.admin)
                line.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertEqual(line.status, 200)

    def test_the_process_is_measured_too(self) -> None:
        """Memory and descriptors, of this process."""
        text = self.built().metrics.exposition()
        for name in (b"\nprocess_resident_memory_bytes ", b"\nprocess_open_fds ", b"\npython_info{"):
            self.assertIn(name, text)

    def test_every_cap_is_told_of(self) -> None:
        """By the core and the storage, the upstreams, the doors; each once (RULES A5)."""
        house = self.built(OCIPROXY_MAX_INGESTS="7", OCIPROXY_MAX_CONNECTIONS="99")
        parts = [house.uses(), house.upstreams.uses(), house.site.census.uses()]
        self.assertEqual(sorted(cap for part in parts for cap in part), sorted(CAPS))
        told = {cap: limit for part in parts for cap, (used, limit) in part.items() if used == 0}
        self.assertEqual((told["max_ingests"], told["max_connections"]), (7, 99))

    def test_configured_upstreams_have_labels(self) -> None:
        """Those that are known without configuration too."""
        house = self.built()
        self.assertEqual([house.metrics.label(name) for name in ("docker.io", "ghcr.io")], ["docker.io", "ghcr.io"])
        self.assertEqual(house.metrics.label("evil.example"), "unlisted")
