"""Every address that is connected to has passed the guard (RULES F1, F2): real endpoints, names in memory."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.certificates import Authority, trusted_by_the_system
from tests.upstreams.fakes import pull_of
from tests.upstreams.sockets import Handler, Seen, Sockets, WebServer, reply, settled
from txociproxy.interfaces import ANONYMOUS, Credentials
from txociproxy.oci.errors import OCIError
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable, shipped_entries
from txociproxy.upstreams.registry import Upstreams

GLOBAL = "93.184.215.14"
# One of each kind that must not be reached through a hop; the comment says which.
FORBIDDEN = (
    "127.0.0.1",
    "0.0.0.0",  # this machine by another name
    "::1",
    "::ffff:127.0.0.1",  # IPv4-mapped
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::a00:1",
    "2002:7f00:1::",  # 6to4
    "2002:a9fe:a9fe::",
    "10.0.0.1",
    "::ffff:10.0.0.1",
    "192.168.1.1",
    "fd12::1",
    "100.64.0.1",  # carrier-grade NAT
    "169.254.169.254",  # metadata
    "fe80::1",
    "224.0.0.1",  # multicast
    "ff02::1",
    "192.0.0.192",
)


def _leading_to(url: str) -> Handler:
    return lambda _: reply(307, location=url)


def _wanting_a_token_from(realm: str) -> Handler:
    return lambda _: reply(401, www_authenticate=f'Bearer realm="{realm}"')


class GuardedTests(SynchronousTestCase):
    """A registry at a global address; it leads to ``evil.example``, whose address is forbidden."""

    def setUp(self) -> None:
        """Names have no addresses yet."""
        self.reactor = Sockets({"reg.example": [[GLOBAL]]})

    def ask(self, *entries: Entry, namespace: str = "reg.example") -> Deferred[IResponse]:
        """Pull a blob from a table in which unlisted namespaces are public."""
        table = UpstreamTable((*shipped_entries(), *entries), unlisted="public")
        self.upstreams = Upstreams(self.reactor, LiveTable(table), InlineWorkers())
        upstream = self.upstreams.upstream(namespace)
        assert upstream is not None
        return settled(self.reactor, upstream.get(pull_of(), ANONYMOUS, None, None))

    def assert_refused(self, asked: Deferred[IResponse], *words: str) -> None:
        """See a 403 with these words."""
        error = self.failureResultOf(asked, OCIError).value
        self.assertEqual((error.code, error.status), ("DENIED", 403))
        for word in words:
            self.assertIn(word, error.message)

    def serve(self, handler: Handler, address: str = GLOBAL, port: int = 80) -> WebServer:
        """Let a server listen without TLS."""
        server = WebServer(handler)
        self.reactor.servers[address, port] = server.plain()
        return server

    def entry(self, url: str = "http://reg.example", origins: tuple[str, ...] = ()) -> Entry:
        """Return a configured entry."""
        return Entry("reg.example", (url,), origins=origins)

    def test_an_unlisted_namespace_leads_to_global_addresses_only(self) -> None:
        """Also its own host, whose address its owner chooses."""
        for address in FORBIDDEN:
            self.reactor = Sockets({"reg.example": [[address]]})
            self.assert_refused(self.ask(), "reg.example leads to https://reg.example", "`upstreams`")
            self.assertEqual(self.reactor.attempts, [], address)

    def test_of_several_addresses_only_the_global_ones_are_tried(self) -> None:
        """In any order; here nobody listens at the one that is left."""
        for addresses in (["127.0.0.1", GLOBAL], [GLOBAL, "127.0.0.1", "::ffff:10.0.0.1"]):
            self.reactor = Sockets({"reg.example": [addresses]})
            self.failureResultOf(self.ask_and_wait())
            self.assertEqual(self.reactor.attempts, [(GLOBAL, 443)])

    def ask_and_wait(self) -> Deferred[IResponse]:
        """Ask, and let the delays between addresses pass."""
        asked = self.ask()
        for _ in range(10):
            self.reactor.advance(0.1)
        return asked

    def test_the_address_that_was_judged_is_the_one_that_is_connected_to(self) -> None:
        """A name that changes its address between two look-ups gains nothing: there is one look-up per connection."""
        self.reactor = Sockets({"reg.example": [[GLOBAL], ["127.0.0.1"]]})
        self.failureResultOf(self.ask_and_wait())
        self.assertEqual((self.reactor.names.asked, self.reactor.attempts), (["reg.example"], [(GLOBAL, 443)]))
        upstream = self.upstreams.upstream("reg.example")
        assert upstream is not None
        self.assert_refused(settled(self.reactor, upstream.get(pull_of(), ANONYMOUS, None, None)))
        self.assertEqual(self.reactor.attempts, [(GLOBAL, 443)])

    def test_a_redirect_of_a_configured_upstream_is_judged(self) -> None:
        """As its first and as its second hop; the 403 names the key to set."""
        for address in FORBIDDEN:
            for via in ("http://evil.example/x", "http://mid.example/x"):
                names = {"reg.example": [[GLOBAL]], "mid.example": [["1.1.1.1"]], "evil.example": [[address]]}
                self.reactor = Sockets(names)
                self.serve(_leading_to(via))
                self.serve(_leading_to("http://evil.example/y"), "1.1.1.1")
                self.assert_refused(self.ask(self.entry()), "origins: [http://evil.example]")
                self.assertEqual({host for host, _ in self.reactor.attempts} - {GLOBAL, "1.1.1.1"}, set(), address)

    def test_a_literal_in_a_redirect_is_judged(self) -> None:
        """Resolvers take many forms of one address."""
        for host in ("127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"):
            self.reactor = Sockets({"reg.example": [[GLOBAL]]})
            self.serve(_leading_to(f"http://{host}/x"))
            self.assert_refused(self.ask(self.entry()), "the proxy's own machine")
            self.assertEqual(self.reactor.attempts, [(GLOBAL, 80)])

    def test_a_token_server_is_judged(self) -> None:
        """Its address comes from a stranger's header field."""
        for address in FORBIDDEN:
            self.reactor = Sockets({"reg.example": [[GLOBAL]], "evil.example": [[address]]})
            self.serve(_wanting_a_token_from("http://evil.example/token"))
            self.assert_refused(self.ask(self.entry()), "http://evil.example")
            self.assertEqual(self.reactor.attempts, [(GLOBAL, 80)], address)

    def test_a_redirect_of_a_token_server_is_judged(self) -> None:
        """It is a hop as any other."""
        self.reactor = Sockets({"reg.example": [[GLOBAL]], "evil.example": [["127.0.0.1"]], "auth": [["1.1.1.1"]]})
        self.serve(_wanting_a_token_from("http://auth/token"))
        self.serve(_leading_to("http://evil.example/x"), "1.1.1.1")
        self.assert_refused(self.ask(self.entry()), "http://evil.example")
        self.assertEqual(self.reactor.attempts, [(GLOBAL, 80), ("1.1.1.1", 80)])

    def test_a_homelab_registry_that_redirects_within_its_origins_works(self) -> None:
        """Its store at another private address, or at this machine."""
        for store, origins in (("10.0.0.2", ()), ("127.0.0.1", ("http://store.lan:9000",))):
            self.reactor = Sockets({"reg.lan": [["10.0.0.1"]], "store.lan": [[store]]})
            self.serve(_leading_to("http://store.lan:9000/x"), "10.0.0.1", 5000)
            self.serve(lambda _: reply(200, b"content"), store, 9000)
            self.assertEqual(self.successResultOf(self.ask(self.entry("http://reg.lan:5000", origins))).code, 200)
            self.assertEqual(self.reactor.attempts, [("10.0.0.1", 5000), (store, 9000)])

    def test_a_homelab_registry_does_not_lead_to_this_machine_or_to_metadata(self) -> None:
        """Unless that is named."""
        for address in ("127.0.0.1", "::1", "169.254.169.254"):
            self.reactor = Sockets({"reg.lan": [["10.0.0.1"]], "store.lan": [[address]]})
            self.serve(_leading_to("http://store.lan:9000/x"), "10.0.0.1", 5000)
            self.assert_refused(self.ask(self.entry("http://reg.lan:5000")), "origins: [http://store.lan:9000]")
            self.assertEqual(self.reactor.attempts, [("10.0.0.1", 5000)])


class UnlistedHopTests(SynchronousTestCase):
    """Where a namespace that nobody has configured may lead; it is met over TLS, as it must be."""

    def setUp(self) -> None:
        """It has a good certificate."""
        names = {"reg.example": GLOBAL, "cdn.example": "1.1.1.1", "evil.example": "10.0.0.1"}
        self.reactor = Sockets({name: [[address]] for name, address in names.items()})
        self.authority = Authority()
        trusted_by_the_system(self, self.authority)
        table = UpstreamTable(shipped_entries(), unlisted="public")
        self.upstreams = Upstreams(self.reactor, LiveTable(table), InlineWorkers())

    def serve(self, handler: Handler, host: str = "reg.example", address: str = GLOBAL) -> WebServer:
        """Let a server listen."""
        server = WebServer(handler)
        self.reactor.servers[address, 443] = server.over_tls(self.authority.issue(host).serving(), self.reactor)
        return server

    def ask(self, credentials: Credentials = ANONYMOUS) -> Deferred[IResponse]:
        """Pull a blob."""
        upstream = self.upstreams.upstream("reg.example")
        assert upstream is not None
        return settled(self.reactor, upstream.get(pull_of(), credentials, None, None))

    def assert_refused(self, words: str) -> None:
        """See a 403 with these words and the remedy, and no connection but the first."""
        error = self.failureResultOf(self.ask(), OCIError).value
        self.assertEqual(error.code, "DENIED")
        self.assertIn(words, error.message)
        self.assertIn("{namespace: reg.example, ", error.message)
        self.assertIn("`upstreams`", error.message)
        self.assertEqual({host for host, _ in self.reactor.attempts}, {GLOBAL})

    def test_only_https_on_its_own_port(self) -> None:
        """For hops and token servers; no name is even looked up."""
        for url in ("https://cdn.example:8443/x", "https://reg.example:22/"):
            self.serve(_leading_to(url))
            self.assert_refused("not https on port 443")
        for url in ("https://cdn.example:8443/x", "http://cdn.example/x", "http://cdn.example:443/"):
            self.serve(_wanting_a_token_from(url))
            self.assert_refused("not https on port 443")
        self.assertEqual(set(self.reactor.names.asked), {"reg.example"})

    def test_only_global_addresses(self) -> None:
        """For hops and token servers."""
        self.serve(_leading_to("https://evil.example/x"))
        self.assert_refused("https://evil.example, which is an address of a private network")
        self.serve(_wanting_a_token_from("https://evil.example/token"))
        self.assert_refused("https://evil.example, which is an address of a private network")

    def test_hops_in_the_world_are_followed(self) -> None:
        """As those of any registry."""
        self.serve(_leading_to("https://cdn.example/x"))
        cdn = self.serve(lambda _: reply(200, b"content"), "cdn.example", "1.1.1.1")
        self.assertEqual(self.successResultOf(self.ask()).code, 200)
        self.assertEqual([seen.line for seen in cdn.seen], ["GET /x"])

    def test_the_clients_credential_stays_here(self) -> None:
        """C6: no Authorization, no Cookie, and no Basic at the token server."""
        challenge = 'Bearer realm="https://reg.example/token"'

        def answer(seen: Seen) -> bytes:
            if seen.line.startswith("GET /token"):
                return reply(200, b'{"token":"anybodys"}')
            return reply(200 if "authorization" in seen.fields else 401, www_authenticate=challenge)

        server = self.serve(answer)
        self.assertEqual(self.successResultOf(self.ask(Credentials("Basic bWU6c2VjcmV0"))).code, 200)
        shown = [seen.fields.get("authorization") for seen in server.seen]
        self.assertEqual(
            (shown, [seen.fields.get("cookie") for seen in server.seen]), ([None, None, "Bearer anybodys"], [None] * 3)
        )


class LiteralTests(SynchronousTestCase):
    """Namespaces that are no names."""

    def test_a_literal_as_a_namespace_is_denied_before_anything_is_asked(self) -> None:
        """``ns=`` and the path alike, whether unlisted ones are public or not."""
        literals = (
            *("127.0.0.1", "169.254.169.254", "[::1]", "[::1]:443", "10.0.0.1:5000", "10.0.0.1:443", "8.8.8.8"),
            *("127.1", "0x7f.1", "2130706433", "0x7f000001", "1.2.3.4.5", "evil.0x7f"),
            *("localhost", "a.localhost", "localhost:5000", "intranet", "reg.example:5000", "127.0.0.1."),
        )
        reactor = Sockets()
        for unlisted in ("public", "deny"):
            table = UpstreamTable(shipped_entries(), unlisted=unlisted)
            upstreams = Upstreams(reactor, LiveTable(table), InlineWorkers())
            for literal in literals:
                error: OCIError = self.assertRaises(OCIError, table.route, "a/b", literal, None)
                self.assertEqual((error.code, error.status), ("DENIED", 403), literal)
                self.assertIn("`upstreams`", error.message)
                self.assertRaises(OCIError, table.bound, literal, None)
                self.assertIsNone(upstreams.upstream(literal))
        self.assertEqual((reactor.names.asked, reactor.attempts), ([], []))

    def test_nothing_secret_can_stand_in_a_namespace(self) -> None:
        """What is no host is refused as such."""
        table = UpstreamTable(shipped_entries(), unlisted="public")
        for name in ("user:pw@evil.example", "evil.example/x", "evil.example?x", "a b.example", "evil..example"):
            error: OCIError = self.assertRaises(OCIError, table.route, "a/b", name, None)
            self.assertEqual(error.code, "NAME_INVALID", name)
