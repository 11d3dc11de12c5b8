"""What the service opens, in which order it ends, and what it says when it cannot begin."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from threading import Event, Thread
from typing import Any, NoReturn, cast

from attrs import define, field
from twisted.application.service import Application, IServiceCollection
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, Logger, capturedLogs, formatEvent
from twisted.python.components import Componentized
from twisted.trial.unittest import SynchronousTestCase

from txociproxy import __version__
from txociproxy.admissions import Admissions
from txociproxy.building import BUCKET_THREADS, House, build
from txociproxy.config import Config, load
from txociproxy.introduction import is_public
from txociproxy.logs import LogfmtObserver
from txociproxy.logs.writers import FileWriter
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.options import Options
from txociproxy.process import observer_for
from txociproxy.service import OCIProxyService, makeService
from txociproxy.upstreams.entries.table import UpstreamTable
from txociproxy.wiring import core_rules

ROOT = Path(__file__).parent.parent
# Prints what of a bucket has been imported after a start.
WITHOUT_A_BUCKET = """
import sys
from twisted.internet.testing import MemoryReactorClock
from txociproxy.config import load
from txociproxy.service import OCIProxyService
environ = {"PROXY_MODE": "transparent", "LISTEN_ADDR": "127.0.0.1:0", "FS_ROOT": sys.argv[1]}
service = OCIProxyService(load({}, environ), MemoryReactorClock())
service.privilegedStartService()
service.startService()
names = [name for name in sorted(sys.modules) if name.startswith(("txociproxy.storage.s3.", "boto"))]
print(*(name.removeprefix("txociproxy.storage.s3.") for name in names))
"""


def config(**environ: str) -> Config:
    """Return a configuration that listens on loopback."""
    return load({}, {"PROXY_MODE": "transparent", "LISTEN_ADDR": "127.0.0.1:8080", "FS_ROOT": "/srv/x", **environ})


@define(eq=False)
class Stage:
    """Stands for everything in the house and writes down what is done to it."""

    done: list[str] = field(factory=list)
    running: int = 0
    connections: int = 0
    alive: list[str] = field(factory=list)
    resets: bool = True
    hang: Event = field(factory=Event)
    noisy: bool = True
    refusal: StorageUnavailable | None = None
    storage_end: Deferred[None] = field(factory=lambda: succeed(None))
    upstreams_end: Deferred[None] = field(factory=lambda: succeed(None))

    @property
    def resource(self) -> Stage:
        """The site's root."""
        return self

    @property
    def census(self) -> Stage:
        """Who is connected."""
        return self

    def drain(self) -> None:
        """Let go of connections."""
        self.done.append("connections drained")

    def __attrs_post_init__(self) -> None:
        self.hang.set()  # no thread hangs

    def refuse_waiting(self) -> None:
        """Let nobody wait any more."""
        self.done.append("who waits is refused")

    def cut_all(self) -> None:
        """Cut answers."""
        self.done.append("answers cut")

    def reset_all(self) -> None:
        """Hang up."""
        self.done.append("connections reset")
        if self.resets:
            self.connections = 0

    def beside(self, listener: str) -> Stage:
        """Another site for the same root."""
        self.done.append(f"beside {listener}")
        return self

    def prepare(self, mode: str, adopt: bool) -> None:
        """Make the storage ready."""
        if self.refusal is not None:
            raise self.refusal
        self.done.append(f"storage {'adopted' if adopt else 'ready'} for {mode}")

    def start(self) -> None:
        """Begin what the storage does in the background."""
        self.done.append("storage started")

    def stop(self) -> Deferred[None]:
        """End it."""
        self.done.append("storage stopped")
        return self.storage_end

    def abandon_all(self) -> None:
        """End the ingests."""
        self.done.append("ingests abandoned")

    def doStart(self) -> None:
        """A port opens."""

    def doStop(self) -> None:
        """A port closes."""

    def house(self, *_: object) -> House:
        """Return a house in which everybody is this stage."""
        me, pool = cast(Any, self), cast(Any, _Pool(self))
        upstreams, ways = cast(Any, _Upstreams(self)), cast(Any, _Ways(self))
        return House(me, me, upstreams, me, Admissions(float, 0, b""), pool, (pool,), ways)


@define(eq=False)
class _Upstreams:
    """Connections that end."""

    _stage: Stage

    def turn_to(self, table: UpstreamTable) -> None:
        """Take another table."""
        self._stage.done.append(f"table of {len(table.entries)}")

    def stop(self) -> Deferred[None]:
        """End."""
        self._stage.done.append("connections ended")
        return self._stage.upstreams_end


@define(eq=False)
class _Ways:
    """Connections to a bucket."""

    _stage: Stage

    def stop(self) -> Deferred[None]:
        """End."""
        self._stage.done.append("ways ended")
        return succeed(None)


@define(eq=False)
class _Pool:
    """Threads that end."""

    _stage: Stage

    def run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """Work at once."""
        return maybeDeferred(function, *args)

    def stopping(self) -> Thread:
        """End."""
        self._stage.done.append("threads ended")
        helper = Thread(target=self._stage.hang.wait, daemon=True)
        helper.start()
        return helper


@define(eq=False)
class _Door:
    """A port at an address."""

    address: Any

    def getHost(self) -> Any:
        """Say where."""
        return self.address


@define(eq=False)
class _Stuck:
    """A port that does not close well."""

    end: Deferred[None]
    is_told: bool = False

    def stopListening(self) -> Deferred[None]:
        """Close."""
        self.is_told = True
        return self.end


class _FullReactor(MemoryReactorClock):
    """A machine on which every port is taken."""

    def listenTCP(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse."""
        raise CannotListenError("127.0.0.1", 8080, OSError(98, "Address already in use"))


class ServiceTests(SynchronousTestCase):
    """The root service on a reactor in memory."""

    def setUp(self) -> None:
        """Make a stage and a reactor."""
        self.stage = Stage()
        self.reactor = MemoryReactorClock()

    def service(self, **environ: str) -> OCIProxyService:
        """Return a service of this stage."""
        return OCIProxyService(config(**environ), self.reactor, make=self.stage.house)

    def started(self, **environ: str) -> OCIProxyService:
        """Return a service that runs."""
        service = self.service(**environ)
        service.privilegedStartService()
        service.startService()
        return service

    def doors(self) -> list[tuple[str, int]]:
        """Return where the reactor listens."""
        return [(server[3], server[0]) for server in self.reactor.tcpServers]

    def test_it_opens_all_doors_once(self) -> None:
        """Each address of ``listen`` becomes a port; the second start step opens nothing again."""
        self.started(LISTEN_ADDR="127.0.0.1:8080,127.0.0.2:8081")
        self.assertEqual(self.doors(), [("127.0.0.1", 8080), ("127.0.0.2", 8081)])
        self.assertEqual(self.stage.done, ["storage ready for transparent", "storage started"])

    def test_an_upstream_with_a_door_of_its_own_gets_it(self) -> None:
        """Its site knows the name of its listener (RULES B2)."""
        file = Path(self.mktemp())
        file.write_text("upstreams: [{namespace: r.example, listen: '127.0.0.1:8082'}]", "utf-8")
        self.started(OCIPROXY_CONFIG=str(file))
        self.assertEqual(self.doors(), [("127.0.0.1", 8080), ("127.0.0.1", 8082)])
        self.assertIn("beside 127.0.0.1:8082", self.stage.done)

    def test_it_ends_in_order(self) -> None:
        """Clients' connections drain, answers may end; then ingests, storage, connections, threads, one by one."""
        service = self.started()
        self.stage.done.clear()
        self.stage.running = 1
        self.stage.storage_end = Deferred()
        self.stage.upstreams_end = Deferred()
        ended = service.stopService()
        self.reactor.advance(1)
        self.assertEqual(self.stage.done, ["connections drained"])
        self.stage.running = 0
        self.reactor.advance(1)
        self.assertEqual(self.stage.done[1:], ["ingests abandoned", "storage stopped"])
        self.stage.storage_end.callback(None)
        self.assertEqual(self.stage.done[3:], ["ways ended", "connections ended"])
        self.assertNoResult(ended)
        self.stage.upstreams_end.callback(None)
        self.assertEqual(self.stage.done[5:], ["threads ended"])
        self.successResultOf(ended)

    def test_an_answer_that_does_not_end_is_cut_and_does_not_hold_up_the_end(self) -> None:
        """``drain_timeout`` is the bound; who does not even take that news within a second is reset."""
        service = self.started(OCIPROXY_DRAIN_TIMEOUT="3")
        self.stage.done.clear()
        self.stage.running = self.stage.connections = 1
        ended = service.stopService()
        self.reactor.pump([0.1] * 29)
        self.assertEqual(self.stage.done, ["connections drained"])
        self.reactor.pump([0.1] * 2)
        self.assertEqual(self.stage.done[1:], ["who waits is refused", "ingests abandoned", "answers cut"])
        self.assertNoResult(ended)
        self.reactor.pump([0.1] * 11)
        self.assertEqual(self.stage.done[4:6], ["connections reset", "ingests abandoned"])
        self.successResultOf(ended)

    def test_a_connection_that_cannot_be_ended_does_not_hold_up_the_end(self) -> None:
        """Without a drain timeout all are cut at once."""
        service = self.started(OCIPROXY_DRAIN_TIMEOUT="0")
        self.stage.resets = False
        self.stage.running = self.stage.connections = 1
        ended = service.stopService()
        self.assertIn("answers cut", self.stage.done)
        self.reactor.pump([0.1] * 22)
        self.assertEqual(self.stage.done[-1], "threads ended")
        self.successResultOf(ended)

    def test_an_answer_that_is_over_may_still_be_on_its_way(self) -> None:
        """A slow client takes the last bytes of its body after its answer has been handed over."""
        service = self.started()
        self.stage.running, self.stage.connections = 1, 1
        ended = service.stopService()
        self.reactor.advance(1)
        self.stage.running = 0
        self.reactor.pump([0.1] * 100)
        self.assertNoResult(ended)
        self.stage.connections = 0
        self.reactor.advance(0.1)
        self.successResultOf(ended)
        self.assertNotIn("answers cut", self.stage.done)

    def test_content_that_is_whole_is_published_before_the_storage_ends(self) -> None:
        """Within bounds: a disk that hangs publishes nothing."""
        for comes_true in (True, False):
            self.setUp()
            service = self.started()
            self.stage.alive = ["a commit"]
            ended = service.stopService()
            self.reactor.pump([0.1] * 90)
            self.assertNotIn("storage stopped", self.stage.done)
            if comes_true:
                self.stage.alive = []
            with capturedLogs() as events:
                self.reactor.pump([0.1] * (1 if comes_true else 11))
            self.assertIn("storage stopped", self.stage.done)
            self.assertEqual(any("is given up" in event["log_format"] for event in events), not comes_true)
            self.successResultOf(ended)

    def test_how_the_end_goes_on_is_said(self) -> None:
        """At its start, every five seconds, when something is cut, and when all is over."""
        service = self.started(OCIPROXY_DRAIN_TIMEOUT="12")
        self.stage.running, self.stage.connections = 3, 4
        with capturedLogs() as events:
            ended = service.stopService()
            self.reactor.pump([0.1] * 60)
            self.stage.running = 2
            self.reactor.pump([0.1] * 90)
        self.successResultOf(ended)
        said = [(formatEvent(event), event.get("answers"), event.get("left")) for event in events]
        self.assertEqual(
            said,
            [
                ("draining", 3, None),
                ("still draining", 3, "7"),
                ("still draining", 2, "2"),
                ("cut 2 at the drain timeout", 2, None),
                ("stopped", None, None),
            ],
        )
        self.assertEqual((events[0]["connections"], events[0]["timeout"]), (4, "12"))
        self.assertRegex(events[-1]["seconds"], r"^13\.\d$")

    def test_nobody_is_told_to_come_while_it_ends(self) -> None:
        """It is not ready from the first moment on, and a reload opens no door any more."""
        service = self.started()
        house = service._open()
        self.stage.running = 1
        self.assertIsNone(house.readiness.trouble())
        ended = service.stopService()
        self.assertEqual(house.readiness.trouble(), "draining")
        service.reload()
        self.assertNotIn("table of 8", self.stage.done)
        self.stage.running = 0
        self.reactor.advance(0.1)
        self.successResultOf(ended)

    def test_doors_of_single_upstreams_close_too(self) -> None:
        """Before anybody is waited for, like those of all."""
        service = self.started()
        self.stage.running = 1
        beside = _Stuck(succeed(None))
        assert service._reload is not None
        service._reload.doors["127.0.0.1:8082"] = cast(Any, beside)
        ended = service.stopService()
        self.assertTrue(beside.is_told)
        self.stage.running = 0
        self.reactor.advance(0.1)
        self.successResultOf(ended)

    def test_a_door_that_does_not_close_does_not_hold_up_the_end(self) -> None:
        """The file of its socket may be gone."""
        service = self.started()
        service._ports = [cast(Any, _Stuck(end)) for end in (fail(OSError(2, "No such file")), Deferred())]
        ended = service.stopService()
        self.reactor.advance(3)
        self.successResultOf(ended)
        self.assertEqual(self.stage.done[-1], "threads ended")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_an_upstream_that_does_not_let_go_does_not_hold_up_the_end(self) -> None:
        """Connections have three seconds to close."""
        service = self.started()
        self.stage.upstreams_end = Deferred()
        ended = service.stopService()
        self.reactor.advance(3)
        self.assertEqual(self.stage.done[-1], "threads ended")
        self.successResultOf(ended)

    def test_a_storage_that_does_not_end_or_not_well_does_not_hold_up_the_end(self) -> None:
        """A bucket that hangs has three seconds, and what it could not do is logged."""
        service = self.started()
        self.stage.storage_end = Deferred()
        ended = service.stopService()
        self.reactor.advance(3)
        self.assertEqual(self.stage.done[-1], "threads ended")
        self.successResultOf(ended)
        self.setUp()
        service = self.started()
        self.stage.storage_end = fail(ZeroDivisionError("oops"))
        self.successResultOf(service.stopService())
        self.assertEqual(self.stage.done[-1], "threads ended")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_service_that_never_started_ends(self) -> None:
        """There is nothing to end, and that is fine."""
        self.successResultOf(self.service().stopService())

    def test_a_port_in_use_is_one_line(self) -> None:
        """It names the option, the value and the remedy."""
        self.reactor = _FullReactor()
        error = str(self.assertRaises(SystemExit, self.service().privilegedStartService))
        self.assertRegex(error, r"^--listen: '127\.0\.0\.1:8080': .*in use.*; choose another address or port$")

    def test_a_storage_that_cannot_be_written_is_one_line(self) -> None:
        """It names the directory."""
        why = "cannot write to /srv/x: Read-only file system; name a directory we can write"
        self.stage.refusal = StorageUnavailable(why)
        service = self.service()
        service.privilegedStartService()
        error = str(self.assertRaises(SystemExit, service.startService))
        self.assertRegex(error, r"^--fs-root: '/srv/x': cannot write .*; name a directory we can write$")
        self.assertNotIn("storage started", self.stage.done)

    def test_a_bucket_that_cannot_be_used_is_one_line(self) -> None:
        """It names the bucket, or the directory in front of it, whichever is wrong."""
        for why, where in (
            ("the S3 bucket images belongs to authenticated mode", "--s3-bucket: 'images'"),
            ("cannot write to /srv/x/spool: Read-only file system", "--spool-dir: '/srv/x/spool'"),
        ):
            self.setUp()
            self.stage.refusal = StorageUnavailable(why)
            service = self.service(STORAGE_BACKEND="s3", S3_BUCKET="images")
            service.privilegedStartService()
            self.assertEqual(str(self.assertRaises(SystemExit, service.startService)), f"{where}: {why}")

    def test_the_first_line_says_who_we_are(self) -> None:
        """Version, mode, storage and doors; then which upstreams see clients' credentials (RULES C6)."""
        with capturedLogs() as events:
            self.service().setServiceParent(cast(IServiceCollection, Application("x")))
        first, second = events
        self.assertEqual(first["log_format"], "starting")
        said = {name: first[name] for name in ("version", "mode", "storage", "doors")}
        self.assertEqual(
            said, {"version": __version__, "mode": "transparent", "storage": "fs:/srv/x", "doors": "127.0.0.1:8080"}
        )
        self.assertIn("docker.io", second["namespaces"])

    def test_a_bucket_is_said_at_the_start(self) -> None:
        """Its name, what stands before its keys, its server if one is configured, and where content waits."""
        for said, expected in (
            ({"S3_BUCKET": "images"}, {"storage": "s3:images", "spool": "/srv/x/spool"}),
            (
                {"S3_PREFIX": "a/b", "OCIPROXY_S3_ENDPOINT_URL": "http://s3.lan:9000"},
                {"storage": "s3:oci-cache/a/b", "endpoint": "http://s3.lan:9000", "spool": "/srv/x/spool"},
            ),
        ):
            with capturedLogs() as events:
                self.service(STORAGE_BACKEND="s3", **said).setServiceParent(cast(IServiceCollection, Application("x")))
            words = {name: events[0][name] for name in ("storage", "endpoint", "spool") if name in events[0]}
            self.assertEqual(words, expected)

    def said(self, **environ: str) -> list[tuple[str, str, str]]:
        """Return level, text and namespaces of what is said at the start about trust."""
        with capturedLogs() as events:
            self.service(**environ).setServiceParent(cast(IServiceCollection, Application("x")))
        told = [event for event in events if "namespaces" in event]
        return [(event["log_level"].name, event["log_format"], event["namespaces"]) for event in told]

    def test_who_can_pull_what_with_our_credentials_is_said(self) -> None:
        """A warning in transparent mode, and another in the mode that does not use them (RULES D3)."""
        credentials = {"UPSTREAM_CREDENTIALS": '{"ghcr.io": {"username": "u", "password": "p"}}'}
        _, (level, text, namespaces) = self.said(**credentials)
        self.assertEqual((level, namespaces), ("warn", "ghcr.io"))
        self.assertIn("whoever reaches this proxy", text)
        _, (level, text, namespaces) = self.said(PROXY_MODE="authenticated", **credentials)
        self.assertEqual((level, namespaces), ("warn", "ghcr.io"))
        self.assertIn("not used", text)

    def test_passwords_in_plain_http_are_warned_of(self) -> None:
        """In authenticated mode, at doors that others can reach (RULES D4)."""
        for mode, warns in (("authenticated", True), ("transparent", False)):
            with capturedLogs() as events:
                self.started(PROXY_MODE=mode, LISTEN_ADDR=":8080")
                self.reactor.running = True
                for call, args, kwargs in self.reactor.whenRunningHooks:
                    call(*args, **kwargs)
            texts = [event["log_format"] for event in events if event["log_level"].name == "warn"]
            self.assertEqual(any("plain HTTP" in text for text in texts), warns, mode)
            self.setUp()

    def test_doors_that_only_this_machine_can_reach(self) -> None:
        """Loopback of both families, and sockets of the file system."""
        for address, expected in (
            (IPv4Address("TCP", "127.0.0.1", 1), False),
            (IPv4Address("TCP", "127.8.0.1", 1), False),
            (IPv6Address("TCP", "::1", 1), False),
            (UNIXAddress(b"/run/x"), False),
            (IPv4Address("TCP", "0.0.0.0", 1), True),
            (IPv6Address("TCP", "::", 1), True),
            (IPv6Address("TCP", "fe80::1%eth0", 1), True),
            (IPv4Address("TCP", "192.0.2.1", 1), True),
        ):
            port = cast(Any, _Door(address))
            self.assertEqual(is_public(port), expected, address)

    def test_a_store_is_adopted_when_that_is_said(self) -> None:
        """``adopt_store`` (RULES D4)."""
        self.started(OCIPROXY_ADOPT_STORE="yes")
        self.assertEqual(self.stage.done[0], "storage adopted for transparent")

    def test_a_signal_reloads_the_table(self) -> None:
        """What is read again in a thread is turned to."""
        service = OCIProxyService(config(), self.reactor, make=self.stage.house, reread=config)
        service.reload()  # before anything is open there is nothing to do
        service.privilegedStartService()
        service.startService()
        service.reload()
        self.assertEqual(self.stage.done[-1], "table of 8")

    def test_its_own_lines_are_written_from_the_first_on(self) -> None:
        """``twistd`` takes the observer from the application; without one it uses its own."""
        for observer in (LogfmtObserver(str), None):
            application = Application("x")
            OCIProxyService(config(), self.reactor, observer).setServiceParent(cast(IServiceCollection, application))
            self.assertIs(cast(Componentized, application).getComponent(ILogObserver, None), observer)


class MakingTests(SynchronousTestCase):
    """From a configuration to objects."""

    def test_a_house_is_built_without_touching_disk_or_network(self) -> None:
        """Nothing is opened, connected or written before the service starts."""
        root = Path(self.mktemp())
        reactor = MemoryReactorClock()
        house = build(config(FS_ROOT=str(root)), reactor)
        for pool in house.pools:
            self.addCleanup(pool.stop)
        self.assertFalse(root.exists())
        self.assertEqual((reactor.tcpServers, reactor.tcpClients), ([], []))

    def test_a_house_over_a_bucket_is_built_without_asking_for_it(self) -> None:
        """A storage in the bucket, with threads of its own that end with the others; no directory is made."""
        root, reactor = Path(self.mktemp()), MemoryReactorClock()
        house = build(config(FS_ROOT=str(root), STORAGE_BACKEND="s3", OCIPROXY_S3_UPLOADS="3"), reactor)
        for pool in house.pools:
            self.addCleanup(pool.stop)
        storage = cast(Any, house.storage)
        self.assertEqual(type(storage).__name__, "S3Storage")
        self.assertEqual({storage._layout.root, storage._local._layout.root}, {root.absolute() / "spool"})
        self.assertEqual(storage._agent_for, cast(Any, house.ways).agent_for)
        self.assertIs(storage._disk_workers, storage._local._writers)
        self.assertEqual([pool._pool.max for pool in house.pools if pool._pool.name == "s3"], [3 + BUCKET_THREADS])
        self.assertFalse(root.exists())
        self.assertEqual((reactor.tcpServers, reactor.tcpClients), ([], []))

    def test_what_is_configured_about_disk_and_network_reaches_the_bucket_too(self) -> None:
        """Outbound proxies, and the space that stays free; with and without a bucket."""
        for backend in ("fs", "s3"):
            said = {"STORAGE_BACKEND": backend, "HTTP_PROXY": "http://proxy.lan:3128", "OCIPROXY_MIN_FREE": "7%"}
            wanted = config(FS_ROOT=self.mktemp(), **said)
            house = build(wanted, MemoryReactorClock())
            for pool in house.pools:
                self.addCleanup(pool.stop)
            storage = cast(Any, house.storage)
            space = (storage if backend == "fs" else storage._local)._space
            self.assertEqual((space._min_free_fraction, space._min_free_bytes), (0.07, 2**30))
        self.assertTrue(wanted.outbound.is_set)
        self.assertIs(cast(Any, house.ways)._proxies, wanted.outbound)

    def test_nobody_without_a_bucket_pays_for_one(self) -> None:
        """Neither the SDK nor what uses it is imported by a start on a directory."""
        words = [sys.executable, "-c", WITHOUT_A_BUCKET, str(Path(self.mktemp()).absolute())]
        child = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(child.stdout.split(), ["settings", "trouble"], child.stderr)

    def test_what_is_configured_reaches_the_core(self) -> None:
        """Each cap and policy arrives under its name there."""
        rules = core_rules(
            config(
                OCIPROXY_MAX_INGESTS="7",
                OCIPROXY_MAX_LONELY_INGESTS="3",
                OCIPROXY_MAX_CARRIED="40",
                OCIPROXY_TAG_FRESH_S="5",
                OCIPROXY_STALE_IF_ERROR_S="unlimited",
                OCIPROXY_RANGE_MISS="fill",
                OCIPROXY_SPOOL_STALL_S="9",
                CACHE_LATEST_TAG="yes",
                OCIPROXY_REDIRECT=">1MiB",
                OCIPROXY_NO_REDIRECT="10.0.0.0/8",
            )
        )
        self.assertEqual((rules.caps.total, rules.caps.lonely, rules.caps.carried), (7, 3, 40))
        self.assertEqual(rules.ranges.miss, "fill")
        self.assertEqual((rules.tags.fresh_s, rules.tags.stale_if_error_s, rules.tags.keep_latest), (5, None, True))
        self.assertEqual(rules.limits.spool_stall_s, 9)
        self.assertEqual((rules.redirects.above_bytes, rules.redirects.not_for), (2**20, (ip_network("10.0.0.0/8"),)))

    def test_make_service_takes_the_parsed_options(self) -> None:
        """Without ``twistd`` around it, the process is left alone."""
        options = Options({})
        options.parseOptions(["--mode=transparent", "--listen=127.0.0.1:8080"])
        self.assertIsInstance(makeService(options, MemoryReactorClock()), OCIProxyService)

    def test_a_choice_of_the_user_of_twistd_stands(self) -> None:
        """Only an observer of his own turns ours off."""
        for twistd in (None, {"logger": "x.y"}):
            self.assertIsNone(observer_for(twistd, "info"))
        self.assertIsNotNone(observer_for({"nodaemon": True}, "info"))

    def test_a_log_file_has_the_same_lines(self) -> None:
        """It is there before the first line, so that one that cannot be is known at the start."""
        path = Path(self.mktemp())
        observer = observer_for({"nodaemon": True, "logfile": str(path)}, "info")
        assert observer is not None
        self.addCleanup(cast(FileWriter, observer.write).close)
        self.assertEqual(path.read_text("utf-8"), "")
        Logger(observer=observer).info("pull", status=200)
        self.assertRegex(path.read_text("utf-8"), r"^ts=\S+ level=info msg=pull status=200\n$")
