"""What trusted proxies say of clients, and nobody else (RULES A5, C3)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyChannel

from tests.web.doubles import Line, Registry, client, serve
from txociproxy.interfaces import Relay
from txociproxy.web.forwarded import MAX_HOPS, believes, client_of, forwarded_host, scheme_of
from txociproxy.web.site import Census, DoorLimits, DoorRequest, DoorSite

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
PROXY = client("10.0.0.1")


def asked(*fields: tuple[str, str], peer: IAddress = PROXY) -> DoorRequest:
    """Return a request with these fields from a peer."""
    request = DoorRequest(DummyChannel())
    request.client = peer
    for name, value in fields:
        request.requestHeaders.addRawHeader(name.encode("ascii"), value.encode("latin-1"))
    return request


def seen(*values: str, peer: IAddress = PROXY) -> str:
    """Return who is taken for the client when X-Forwarded-For has these lines."""
    return client_of(asked(*(("X-Forwarded-For", value) for value in values), peer=peer), TRUSTED)


class ClientTests(SynchronousTestCase):
    """Who the client is."""

    def test_the_last_address_that_is_no_trusted_proxy_is_the_client(self) -> None:
        """What stands left of it may be made up."""
        self.assertEqual(seen("192.0.2.7"), "192.0.2.7")
        self.assertEqual(seen("203.0.113.9, 192.0.2.7"), "192.0.2.7")
        self.assertEqual(seen("203.0.113.9, 192.0.2.7,10.1.1.1 , 10.0.0.2"), "192.0.2.7")

    def test_several_lines_are_one_list(self) -> None:
        """In the order in which they came (RFC 9110, section 5.3)."""
        self.assertEqual(seen("203.0.113.9", "192.0.2.7", "10.0.0.2"), "192.0.2.7")

    def test_nobody_else_is_believed(self) -> None:
        """A client may write there what it likes."""
        self.assertEqual(seen("203.0.113.9", peer=client("192.0.2.1")), "192.0.2.1")
        request = asked(("X-Forwarded-For", "203.0.113.9"))
        self.assertEqual(client_of(request, ()), "10.0.0.1")

    def test_without_a_word_the_proxy_is_the_client(self) -> None:
        """It may ask for itself."""
        self.assertEqual(seen(), "10.0.0.1")
        self.assertEqual(seen(""), "10.0.0.1")

    def test_where_all_are_trusted_the_furthest_is_the_client(self) -> None:
        """A machine within those networks pulls."""
        self.assertEqual(seen("10.3.0.1, 10.0.0.2"), "10.3.0.1")

    def test_what_is_no_address_ends_the_list(self) -> None:
        """The last one that was understood counts."""
        for odd in ("unknown", "_hidden", "10.0.0.256", "1.2.3", "", "192.0.2.7 x", "fe80::1%eth0", "[::1", "1" * 70):
            self.assertEqual(seen(f"192.0.2.7, {odd}, 10.0.0.2"), "10.0.0.2", odd)

    def test_ports_brackets_and_mapped_addresses_are_understood(self) -> None:
        """As load balancers of all kinds write them."""
        for written, meant in (
            ("192.0.2.7:5000", "192.0.2.7"),
            ("[2001:470::1]", "2001:470::1"),
            ("[2001:470::1]:443", "2001:470::1"),
            ("2001:470:0::0001", "2001:470::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7,[2001:db8::2]:1", "192.0.2.7"),
        ):
            self.assertEqual(seen(written), meant, written)

    def test_peers_of_ipv6_and_mapped_ones_are_judged_too(self) -> None:
        """A socket of both families shows IPv4 as mapped."""
        for host in ("2001:db8::9", "::ffff:10.0.0.9"):
            self.assertEqual(seen("192.0.2.7", peer=IPv6Address("TCP", host, 1)), "192.0.2.7", host)

    def test_behind_a_unix_socket_a_proxy_is_believed_where_there_are_any(self) -> None:
        """There is no address to judge by."""
        peer = UNIXAddress("/run/x")
        self.assertEqual(seen("192.0.2.7", peer=peer), "192.0.2.7")
        self.assertEqual(seen(peer=peer), "-")
        self.assertEqual(client_of(asked(("X-Forwarded-For", "192.0.2.7"), peer=peer), ()), "-")

    def test_the_walk_is_bounded(self) -> None:
        """A list of any length costs little."""
        hops = ["192.0.2.7", *(f"10.0.0.{number}" for number in range(MAX_HOPS))]
        self.assertEqual(seen(",".join(hops)), "10.0.0.0")
        self.assertEqual(seen(",".join(hops[:-1])), "192.0.2.7")

    @settings(deadline=None)
    @given(st.lists(st.text(st.characters(max_codepoint=255), max_size=80), max_size=4))
    def test_any_text_gives_an_address(self, lines: list[str]) -> None:
        """At worst the proxy's own."""
        self.assertTrue(ip_address(seen(*lines)))

    @settings(deadline=None)
    @given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=3))
    def test_nothing_that_a_client_writes_hides_it(self, made_up: list[str]) -> None:
        """The proxy appends what it saw."""
        self.assertEqual(seen(*made_up, "192.0.2.7"), "192.0.2.7")


class BaseTests(SynchronousTestCase):
    """Which address of ours a client knows."""

    def test_scheme_and_host_come_from_a_trusted_proxy(self) -> None:
        """It ended the TLS."""
        request = asked(("X-Forwarded-Proto", "HTTPS"), ("X-Forwarded-Host", "cache.example:8443"))
        self.assertEqual(scheme_of(request, TRUSTED), "https")
        self.assertEqual(forwarded_host(request, TRUSTED), "cache.example:8443")
        self.assertEqual((scheme_of(request, ()), forwarded_host(request, ())), ("http", None))

    def test_what_is_not_valid_or_not_one_is_not_taken(self) -> None:
        """Nothing of it may get into a challenge."""
        for odd in ("", "a b", 'a"', "a,b", "a/b", "a@b", "\xe9"):
            self.assertIsNone(forwarded_host(asked(("X-Forwarded-Host", odd)), TRUSTED), odd)
        self.assertIsNone(forwarded_host(asked(("X-Forwarded-Host", "a"), ("X-Forwarded-Host", "b")), TRUSTED))
        for odd in ("", "ftp", "https, http", "httpss"):
            self.assertEqual(scheme_of(asked(("X-Forwarded-Proto", odd)), TRUSTED), "http", odd)

    def test_nobody_is_believed_without_trusted_proxies(self) -> None:
        """Not even behind a Unix socket."""
        self.assertFalse(believes(asked(peer=UNIXAddress("/run/x")), ()))


class DoorTests(SynchronousTestCase):
    """At the door, through the whole tree."""

    def registry(self, **more: Any) -> Registry:
        """Return a registry with trusted proxies."""
        registry = Registry(trusted_proxies=TRUSTED, **more)
        registry.cache.verdict = Relay(401, (), b"")
        return registry

    def said(self, registry: Registry, peer: str) -> bytes:
        """Return the answer to a pull that comes with everything."""
        site = DoorSite(registry.root, Clock(), Census(DoorLimits()))
        return Line(site=site, peer=client(peer)).send(
            b"GET /v2/library/alpine/manifests/3 HTTP/1.1\r\nHost: inner:8080\r\nX-Forwarded-For: 192.0.2.7\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: cache.example\r\n\r\n"
        )

    def test_a_challenge_names_the_address_that_the_client_knows(self) -> None:
        """C3: the scheme and the host of its own request."""
        self.assertIn(b'realm="https://cache.example/v2/_token/docker.io"', self.said(self.registry(), "10.0.0.1"))
        self.assertIn(b'realm="http://inner:8080/v2/_token/docker.io"', self.said(self.registry(), "192.0.2.1"))

    def test_the_configured_address_wins(self) -> None:
        """``public_url`` was said by whoever knows best."""
        registry = self.registry(public_url="https://said.example")
        self.assertIn(b'realm="https://said.example/v2/_token/docker.io"', self.said(registry, "10.0.0.1"))

    def test_caps_and_redirects_go_by_the_client(self) -> None:
        """A5: all who come through one balancer are not one client."""
        for peer, expected in (("10.0.0.1", "192.0.2.7"), ("192.0.2.1", "192.0.2.1")):
            registry = self.registry()
            registry.cache.verdict = serve(b"")
            self.said(registry, peer)
            self.assertEqual(registry.cache.asked[-1].client, expected)
