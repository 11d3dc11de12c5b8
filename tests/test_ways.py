"""How a bucket is reached: real agents and endpoints over names, addresses and servers in memory."""

from __future__ import annotations

from pathlib import Path

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from twisted.web.iweb import IResponse

from tests.upstreams.certificates import Authority, trusted_by_the_system
from tests.upstreams.sockets import Seen, Sockets, WebServer, reply
from txociproxy.collect import collect
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.upstreams.connecting.proxies import OutboundProxies
from txociproxy.ways import CONNECT_S, BucketWays

NAMES = {"s3.lan": [["10.0.0.5"]], "images.s3.lan": [["10.0.0.6"]], "proxy.lan": [["10.0.0.7"]]}


def _ok(_: Seen) -> bytes:
    return reply(200, b"ok")


class WaysTests(SynchronousTestCase):
    """A server of S3 in a private network."""

    def setUp(self) -> None:
        """Nothing is connected, and nobody listens."""
        self.reactor = Sockets({name: list(answers) for name, answers in NAMES.items()})
        self.settings = S3Settings(bucket="images")
        self.ways = BucketWays(self.reactor, self.settings, OutboundProxies())

    def serve(self, address: str, port: int) -> WebServer:
        """Let a server listen."""
        server = WebServer(_ok)
        self.reactor.servers[address, port] = server.plain()
        return server

    def ask(self, url: str, endpoint_url: str, ca_file: str | None = None) -> Deferred[IResponse]:
        """GET a URL by the agent of an endpoint."""
        asked = self.ways.agent_for(endpoint_url, ca_file).request(b"GET", url.encode("ascii"), None, None)
        self.reactor.rest()
        return asked

    def test_a_server_is_made_for_when_it_is_named_and_not_asked(self) -> None:
        """One agent for one server and authority, however often it is wanted."""
        agent = self.ways.agent_for("http://s3.lan:9000", None)
        self.assertIs(self.ways.agent_for("http://s3.lan:9000", None), agent)
        self.assertIsNot(self.ways.agent_for("http://other.lan:9000", None), agent)
        self.assertEqual(self.reactor.attempts, [])

    def test_private_addresses_are_reached_and_connections_are_used_again(self) -> None:
        """A bucket in one's own network is the usual one."""
        self.serve("10.0.0.5", 9000)
        for _ in range(2):
            response = self.successResultOf(self.ask("http://s3.lan:9000/images/x", "http://s3.lan:9000"))
            collected = collect(response, 10, self.reactor, 5)
            self.reactor.rest()
            self.assertEqual(self.successResultOf(collected), b"ok")
        self.assertEqual(self.reactor.attempts, [("10.0.0.5", 9000)])

    def test_a_bucket_in_front_of_the_host_has_a_private_address_too(self) -> None:
        """It is the same server under another name (RULES F2); in the path it is not asked for."""
        self.serve("10.0.0.6", 9000)
        self.ways = BucketWays(self.reactor, evolve(self.settings, path_style=False), OutboundProxies())
        response = self.successResultOf(self.ask("http://images.s3.lan:9000/x", "http://s3.lan:9000"))
        self.assertEqual(response.code, 200)

    def test_an_address_in_place_of_a_name_stays_as_it_is(self) -> None:
        """No name can stand in front of it, whatever is configured."""
        for path_style in (True, False):
            self.ways = BucketWays(self.reactor, evolve(self.settings, path_style=path_style), OutboundProxies())
            for host, address in (("10.0.0.5", "10.0.0.5"), ("[fd00::5]", "fd00::5")):
                self.serve(address, 9000)
                response = self.successResultOf(self.ask(f"http://{host}:9000/images/x", f"http://{host}:9000"))
                self.assertEqual(response.code, 200)
                self.assertEqual(self.ways._urls(f"http://{host}:9000"), (f"http://{host}:9000",))

    def test_nobody_waits_long_for_a_connection(self) -> None:
        """Clients have an upstream to turn to."""
        self.reactor.silent.add(("10.0.0.5", 9000))
        asked = self.ask("http://s3.lan:9000/images/x", "http://s3.lan:9000")
        ((host, port, _, timeout_s, _),) = self.reactor.tcpClients
        self.assertEqual((host, port, timeout_s), ("10.0.0.5", 9000, CONNECT_S))
        asked.cancel()
        self.reactor.rest()
        self.failureResultOf(asked)

    def test_outbound_proxies_count(self) -> None:
        """As they do for upstreams, and as they do for the SDK."""
        self.ways = BucketWays(
            self.reactor, self.settings, OutboundProxies.from_environ({"HTTP_PROXY": "http://proxy.lan:3128"})
        )
        self.ask("http://s3.lan:9000/images/x", "http://s3.lan:9000").addErrback(lambda _: None)
        self.assertEqual(self.reactor.attempts, [("10.0.0.7", 3128)])

    def test_an_authority_of_its_own_is_believed(self) -> None:
        """The file that the SDK was told of; without it the handshake fails."""
        folder = Path(self.mktemp())
        folder.mkdir()
        private = Authority("Private")
        trusted_by_the_system(self, Authority("Public"))
        server = WebServer(_ok)
        serving = private.issue("s3.lan").serving()
        self.reactor.servers["10.0.0.5", 443] = server.over_tls(serving, self.reactor)
        ca_file, _ = private.own.write(folder, "ca")
        url = "https://s3.lan/images/x"
        self.failureResultOf(self.ask(url, "https://s3.lan"), ResponseNeverReceived)
        self.assertEqual(self.successResultOf(self.ask(url, "https://s3.lan", ca_file)).code, 200)
        self.assertEqual([seen.server_name for seen in server.seen], ["s3.lan"])

    def test_authorities_are_not_read_where_nothing_is_encrypted(self) -> None:
        """The SDK's file may be set for the whole machine, and be gone."""
        self.serve("10.0.0.5", 9000)
        asked = self.ask("http://s3.lan:9000/images/x", "http://s3.lan:9000", "/nowhere/ca.pem")
        self.assertEqual(self.successResultOf(asked).code, 200)

    def test_what_cannot_be_used_is_trouble(self) -> None:
        """A file of authorities that is none, an address that is none; no traceback, and no secret."""
        for endpoint_url, ca_file in (
            ("https://s3.lan", "/nowhere/ca.pem"),
            ("HTTPS://s3.lan", "/nowhere/ca.pem"),
            ("s3.lan", None),
            ("http://u:hunter2@s3.lan", None),
        ):
            error = self.assertRaises(S3Trouble, self.ways.agent_for, endpoint_url, ca_file)
            self.assertEqual(error.kind, "refused")
            self.assertNotIn("hunter2", str(error))

    def test_the_end_closes_all_connections(self) -> None:
        """Idle ones too; without any there is nothing to wait for."""
        self.serve("10.0.0.5", 9000)
        self.serve("10.0.0.6", 9000)
        for host in ("s3.lan", "images.s3.lan"):
            response = self.successResultOf(self.ask(f"http://{host}:9000/x", f"http://{host}:9000"))
            collected = collect(response, 10, self.reactor, 5)
            self.reactor.rest()
            self.successResultOf(collected)
        self.assertEqual(len(self.reactor.pipes), 2)
        stopped = self.ways.stop()
        self.reactor.rest()
        self.successResultOf(stopped)
        self.assertEqual(len(self.reactor.pipes), 0)
