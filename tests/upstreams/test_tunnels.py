"""Through an outbound proxy (RULES F1): CONNECT byte by byte, TLS through it, and what the guard can still do."""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.certificates import Authority, trusted_by_the_system
from tests.upstreams.fakes import pull_of
from tests.upstreams.sockets import Pipe, Sockets, WebServer, quiet, reply, settled
from txociproxy.collect import collect
from txociproxy.interfaces import ANONYMOUS
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.upstreams.connecting.agents import READ_BYTES
from txociproxy.upstreams.connecting.proxies import OutboundProxies
from txociproxy.upstreams.connecting.tunnels import MAX_HEAD_BYTES
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.registry import Upstreams

FOUND = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"


class ProxyServer:
    """A proxy that says what the test says, and then is the origin.

    :ivar heads: what it was asked.
    :ivar answer: what it says; None waits.
    """

    def __init__(self, reactor: Sockets) -> None:
        self.reactor = reactor
        self.heads: list[str] = []
        self.answer: bytes | None = FOUND
        self.pipes: list[Pipe] = []

    def factory(self) -> IProtocolFactory:
        """Return what listens."""
        server = self

        class Speaking(Protocol):
            """One connection of it."""

            def __init__(self) -> None:
                self.data = b""

            def connectionMade(self) -> None:
                """Be known."""
                server.pipes.append(cast(Pipe, self.transport))

            def dataReceived(self, data: bytes) -> None:
                """Read the head; after the answer another protocol has the connection."""
                self.data += data
                if b"\r\n\r\n" not in self.data:
                    return
                head, _, rest = self.data.partition(b"\r\n\r\n")
                server.heads.append(head.decode("latin-1"))
                pipe = server.pipes[-1]
                if server.answer is None:
                    return
                pipe.write(server.answer)
                host, _, port = head.split()[1].decode().rpartition(":")
                there = server.reactor.servers.get((f"behind {host.strip('[]')}", int(port)))
                if there is not None:
                    protocol = there.buildProtocol(pipe.getPeer())
                    assert protocol is not None and not rest
                    pipe.protocol = protocol
                    protocol.makeConnection(pipe)

        return quiet(Speaking)


class TunnelTests(SynchronousTestCase):
    """The proxy at 10.9.9.9:3128; nothing else can be reached from here."""

    def setUp(self) -> None:
        """Names are known to the proxy only."""
        self.reactor = Sockets({"proxy.lan": [["10.9.9.9"]]})
        self.proxy = ProxyServer(self.reactor)
        self.reactor.servers["10.9.9.9", 3128] = self.proxy.factory()
        self.server = WebServer(lambda seen: reply(200, b"content"))
        self.reactor.servers["behind reg.example", 80] = self.server.plain()

    def begin(self, url: str = "http://reg.example", proxy: str = "http://proxy.lan:3128") -> Deferred[IResponse]:
        """Pull a blob through the proxy."""
        entry = Entry("corp", (url,), connect_timeout_s=5.0)
        proxies = OutboundProxies.from_environ(
            {"https_proxy": proxy, "http_proxy": proxy, "no_proxy": "direct.example"}
        )
        table = LiveTable(UpstreamTable((entry,), "corp"))
        upstreams = Upstreams(self.reactor, table, InlineWorkers(), proxies=proxies)
        self.addCleanup(upstreams.stop)
        upstream = upstreams.upstream("corp")
        assert upstream is not None
        return settled(self.reactor, upstream.get(pull_of(), ANONYMOUS, None, None))

    def refusal(self) -> UpstreamUnreachable:
        """Return why there was no answer."""
        error = self.failureResultOf(self.begin(), UpstreamUnreachable).value
        self.reactor.rest()
        self.assertEqual((self.reactor.pipes, self.server.seen), (set(), []))
        assert isinstance(error, UpstreamUnreachable)
        return error

    def test_plain_http_goes_through_a_tunnel(self) -> None:
        """The proxy is asked for host and port, the origin for the path; reads are big."""
        response = self.successResultOf(self.begin())
        body = collect(response, 99, self.reactor, 5)
        self.reactor.rest()
        self.assertEqual(self.successResultOf(body), b"content")
        self.assertEqual(self.proxy.heads, ["CONNECT reg.example:80 HTTP/1.1\r\nHost: reg.example:80"])
        self.assertTrue(self.server.seen[0].line.startswith("GET /v2/team/app/blobs/"))
        self.assertEqual(self.server.seen[0].fields["host"], "reg.example")
        self.assertEqual([pipe.bufferSize for pipe in self.reactor.pipes], [READ_BYTES])
        self.assertEqual((self.reactor.names.asked, self.reactor.attempts), (["proxy.lan"], [("10.9.9.9", 3128)]))

    def test_tls_goes_through_a_tunnel(self) -> None:
        """End to end: the proxy sees neither path nor fields, and the certificate is the origin's."""
        authority = Authority()
        trusted_by_the_system(self, authority)
        server = WebServer(lambda seen: reply(200, b"content"))
        for host, name in (("reg.example", "reg.example"), ("other.example", "reg.example")):
            tls = authority.issue(name).serving()
            self.reactor.servers[f"behind {host}", 443] = server.over_tls(tls, self.reactor)
        self.assertEqual(self.successResultOf(self.begin("https://reg.example")).code, 200)
        self.assertEqual(self.proxy.heads, ["CONNECT reg.example:443 HTTP/1.1\r\nHost: reg.example:443"])
        self.assertEqual(server.seen[0].server_name, "reg.example")
        refused = self.failureResultOf(self.begin("https://other.example"), UpstreamUnreachable).value
        self.assertIn("the certificate is for another host", str(refused))

    def test_the_proxy_is_told_who_we_are_and_nobody_else(self) -> None:
        """And no text tells it."""
        proxy = "http://user:hunter2@proxy.lan:3128"
        self.successResultOf(self.begin(proxy=proxy))
        self.assertIn("\r\nProxy-Authorization: Basic dXNlcjpodW50ZXIy", self.proxy.heads[0])
        self.assertNotIn("proxy-authorization", self.server.seen[0].fields)
        self.proxy.answer = b"HTTP/1.1 407 hunter2\r\nProxy-Authenticate: Basic\r\n\r\n"
        error = self.failureResultOf(self.begin(proxy=proxy), UpstreamUnreachable).value
        self.assertEqual(
            str(error), "http://reg.example: the outbound proxy proxy.lan:3128: wants other credentials (407)"
        )

    def test_what_is_no_tunnel_is_an_outage(self) -> None:
        """In clean words; the connection ends and nothing is sent through it."""
        for said, words in (
            (b"HTTP/1.1 403 Forbidden\r\n\r\n", "does not allow it (403)"),
            (b"HTTP/1.0 502 x\r\n\r\n", "answered 502"),
            (b"HTTP/1.1 302 x\r\nLocation: http://evil/\r\n\r\n", "answered 302"),
            (b"HTTP/1.1 100 Continue\r\n\r\n", "answered 100"),
            (b"SSH-2.0-x\r\n\r\n", "not HTTP"),
            (b"HTTP/2 200\r\n\r\n", "not HTTP"),
            (b"HTTP/1.1 200\x00\r\n\r\n", "not HTTP"),
            (b"HTTP/1.1 200 x\r\n" + b"X: y\r\n" * MAX_HEAD_BYTES, "more than an answer"),
            (b"x" * MAX_HEAD_BYTES, "more than an answer"),
        ):
            self.proxy.answer = said
            error = self.refusal()
            self.assertIn("the outbound proxy proxy.lan:3128: ", str(error))
            self.assertIn(words, str(error))
            self.assertFalse(error.timed_out)

    def test_a_tunnel_may_have_a_long_head_and_come_in_pieces(self) -> None:
        """What follows the head belongs to the origin, in whatever pieces it comes."""
        self.proxy.answer = None
        del self.reactor.servers["behind reg.example", 80]
        whole = b"HTTP/1.0 200\nX: " + b"y" * (MAX_HEAD_BYTES - 99) + b"\n\n"
        got = self.begin()
        (pipe,) = self.proxy.pipes
        for start in range(0, len(whole) - 1, 700):
            pipe.write(whole[start : start + 700][: len(whole) - 1 - start])
        self.reactor.rest()
        self.assertNoResult(got)
        pipe.write(whole[-1:] + b"HTTP/1.1 200 early\r\nContent-Length: 3\r\n\r\nabc")
        self.reactor.rest()
        self.failureResultOf(got, UpstreamUnreachable)

    def test_a_proxy_that_says_nothing_is_a_time_out(self) -> None:
        """After the time that a connection may take; the connection is ended."""
        self.proxy.answer = None
        got = self.begin()
        self.assertEqual(len(self.reactor.pipes), 1)
        self.reactor.advance(4.9)
        self.assertNoResult(got)
        self.reactor.advance(0.1)
        self.reactor.rest()
        error = self.failureResultOf(got, UpstreamUnreachable).value
        self.assertEqual((error.timed_out, self.reactor.pipes), (True, set()))
        self.assertIn("the outbound proxy proxy.lan:3128: did not answer in time", str(error))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_proxy_that_is_not_there_is_named(self) -> None:
        """Or one would look for the fault at the registry."""
        del self.reactor.servers["10.9.9.9", 3128]
        got = self.begin()
        self.reactor.advance(1)
        self.assertIn(
            "http://reg.example: the outbound proxy proxy.lan:3128: connection refused",
            str(self.failureResultOf(got, UpstreamUnreachable).value),
        )
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_proxy_that_hangs_up_is_named(self) -> None:
        """Before it has answered."""
        self.proxy.answer = None
        got = self.begin()
        self.proxy.pipes[0].abortConnection()
        self.reactor.rest()
        error = str(self.failureResultOf(got, UpstreamUnreachable).value)
        self.assertIn("proxy.lan:3128: closed the connection before an answer", error)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_who_leaves_ends_the_connection(self) -> None:
        """Before there is one, and before the proxy has answered."""
        self.proxy.answer = None
        got = self.begin()
        got.cancel()
        self.failureResultOf(got, CancelledError)
        self.reactor.rest()
        self.assertEqual((self.reactor.pipes, self.reactor.getDelayedCalls()), (set(), []))
        self.reactor.silent.add(("10.9.9.9", 3128))
        got = self.begin()
        got.cancel()
        self.failureResultOf(got, CancelledError)
        connector: Any = self.reactor.connectors[-1]
        self.assertTrue(connector.stoppedConnecting)
        self.assertEqual((self.reactor.pipes, self.reactor.getDelayedCalls()), (set(), []))

    def test_a_connection_through_a_tunnel_is_used_again_and_its_end_is_seen(self) -> None:
        """As any other."""
        body = collect(self.successResultOf(self.begin()), 99, self.reactor, 5)
        self.reactor.rest()
        self.successResultOf(body)
        self.assertEqual(len(self.reactor.pipes), 1)
        self.server.handler = lambda seen: reply(200, b"ab", content_length="9")
        broken = collect(self.successResultOf(self.begin()), 99, self.reactor, 5)
        self.proxy.pipes[-1].abortConnection()
        self.reactor.rest()
        self.failureResultOf(broken, UpstreamUnreachable)

    def test_literals_are_judged_before_the_proxy_is_asked(self) -> None:
        """In every form: the proxy would resolve them."""
        for host in (
            "127.0.0.1",
            "[::1]",
            "10.0.0.1",
            "169.254.169.254",
            "0xa9fea9fe",
            "2852039166",
            "10.1",
            "[fd00::1]",
        ):
            self.setUp()
            self.server.handler = lambda seen, host=host: reply(307, location=f"http://{host}/x")  # type: ignore[misc]
            self.failureResultOf(self.begin(), OCIError)
            self.assertEqual([head.split()[1] for head in self.proxy.heads], ["reg.example:80"])
        self.assertEqual(set(self.reactor.attempts), {("10.9.9.9", 3128)})

    def test_literals_that_may_be_reached_are_asked_for(self) -> None:
        """Global ones, and a private registry that the owner has written down."""
        self.server.handler = lambda seen: reply(307, location="http://[2606:4700::1111]:8080/x")
        self.reactor.servers["behind 2606:4700::1111", 8080] = WebServer(lambda seen: reply(200, b"ok")).plain()
        self.assertEqual(self.successResultOf(self.begin()).code, 200)
        self.assertIn("CONNECT [2606:4700::1111]:8080 HTTP/1.1\r\nHost: [2606:4700::1111]:8080", self.proxy.heads)
        self.reactor.servers["behind 10.0.0.7", 5000] = WebServer(lambda seen: reply(200, b"ok")).plain()
        self.assertEqual(self.successResultOf(self.begin("http://10.0.0.7:5000")).code, 200)

    def test_an_exception_is_reached_directly_and_is_judged_as_ever(self) -> None:
        """By its addresses."""
        self.reactor.names.known["direct.example"] = [["127.0.0.1"]]
        self.server.handler = lambda seen: reply(307, location="http://direct.example/x")
        self.failureResultOf(self.begin(), OCIError)
        self.assertEqual(self.reactor.attempts, [("10.9.9.9", 3128)])
        self.reactor.names.known["direct.example"] = [["1.1.1.1"]]
        self.reactor.servers["1.1.1.1", 80] = WebServer(lambda seen: reply(200, b"ok")).plain()
        self.assertEqual(self.successResultOf(self.begin()).code, 200)
        self.assertEqual(self.reactor.attempts[-1], ("1.1.1.1", 80))
