"""Where an upstream may lead us (RULES F)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.connecting.guard import Guard
from txociproxy.upstreams.connecting.reach import ends_in_a_number, forbidden_reason, literal_reach, reach_of
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.origins import Origin

CDN = Origin.of("https://cdn.example.net")


class ReachTests(SynchronousTestCase):
    """How far addresses reach."""

    def test_each_kind_of_address(self) -> None:
        """The list, by an example each."""
        for reach, addresses in (
            ("global", "1.1.1.1 8.8.8.8 2606:4700::1111 172.32.0.1 100.63.255.255 64:ff9b::8.8.8.8 ::ffff:1.1.1.1"),
            ("private", "10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 198.18.0.1 fd12::1 2001:db8::1"),
            ("loopback", "127.0.0.1 127.255.255.254 0.0.0.0 ::1 :: ::ffff:127.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1"),
            ("never", "169.254.169.254 fe80::1 fe80::1%eth0 224.0.0.1 ff02::1 255.255.255.255 240.0.0.1 192.0.0.192"),
            ("never", "fd00:ec2::254 fd20:ce::254 168.63.129.16 100.100.100.200 ::ffff:169.254.169.254"),
            ("never", "2002:a9fe:a9fe:: 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2001::1 100::1 fec0::1 nonsense 1.2.3"),
        ):
            for address in addresses.split():
                self.assertEqual(reach_of(address), reach, address)

    def test_what_python_calls_private_is_never_global(self) -> None:
        """Our list is at least as strict as the standard library's, under every disguise."""

        @settings(deadline=None, max_examples=300)
        @given(st.ip_addresses(v=4))
        def holds(address: IPv4Address) -> None:
            forms = (
                str(address),
                f"::ffff:{address}",
                f"64:ff9b::{address}",
                str(IPv6Address((0x2002 << 112) | (int(address) << 80))),
            )
            self.assertEqual(len({reach_of(form) for form in forms}), 1)
            if not address.is_global or address.is_multicast:
                self.assertNotEqual(reach_of(str(address)), "global")

        holds()

    def test_no_ipv6_address_is_global_that_python_calls_private(self) -> None:
        """Carriers of IPv4 addresses aside, whose truth lies inside."""

        @settings(deadline=None, max_examples=300)
        @given(st.ip_addresses(v=6))
        def holds(address: IPv6Address) -> None:
            if reach_of(str(address)) == "global" and address.sixtofour is None and int(address) >> 96 != 0x64FF9B:
                self.assertTrue(address.is_global or address.ipv4_mapped is not None)

        holds()

    def test_a_reason_is_given_for_what_is_forbidden(self) -> None:
        """Flags open their own kind only."""
        self.assertIsNone(forbidden_reason("global"))
        self.assertIsNotNone(forbidden_reason("private"))
        self.assertIsNone(forbidden_reason("private", private=True))
        self.assertIsNotNone(forbidden_reason("loopback", private=True))
        self.assertIsNone(forbidden_reason("loopback", loopback=True))
        self.assertIsNotNone(forbidden_reason("never", private=True, loopback=True))
        self.assertIsNone(forbidden_reason("never", named=True))

    def test_literals_in_urls_come_in_many_forms(self) -> None:
        """What a resolver would take for an address is judged as one."""
        for reach, hosts in (
            ("loopback", "127.0.0.1 127.1 0x7f.1 0x7f000001 2130706433 0177.0.0.1 0 ::1"),
            ("never", "169.254.169.254 0xa9fea9fe 2852039166 169.254.43518"),
            ("private", "10.1 0xa.0.0.1 012.1"),
            ("global", "8.8.8.8 134744072"),
            (None, "example.com registry-1 a.b1 cafe.babe 1.2.3.4.5 999.1.1.1 0xz.1"),
        ):
            for host in hosts.split():
                self.assertEqual(literal_reach(host), reach, host)

    def test_names_do_not_end_in_numbers(self) -> None:
        """Neither decimal nor hexadecimal."""
        for host in ("127.1", "0x7f", "a.0X7F", "1.2.3.4.5", "example.0x"):
            self.assertTrue(ends_in_a_number(host), host)
        for host in ("a.b1", "1.2.3.example", "example.0xyz", "cafe"):
            self.assertFalse(ends_in_a_number(host), host)


class GuardTests(SynchronousTestCase):
    """F2, for configured entries."""

    def test_own_urls_lead_wherever_they_lead(self) -> None:
        """The owner wrote them down."""
        guard = Guard(Entry("corp", ("http://meta.corp", "http://corp")))
        for address in ("169.254.169.254", "127.0.0.1", "10.0.0.1"):
            self.assertIsNone(guard.reason(Origin.of("http://meta.corp"), address))

    def test_hops_of_a_global_upstream_are_global(self) -> None:
        """Even for a name that ends like a number."""
        guard = Guard(Entry("corp", ("https://registry-1",)))
        self.assertIsNone(guard.reason(CDN, "8.8.8.8"))
        self.assertIsNone(guard.reason(Origin.of("https://registry-1"), "8.8.8.8"))
        for address in ("10.0.0.1", "127.0.0.1", "fd12::1", "169.254.169.254"):
            self.assertIsNotNone(guard.reason(CDN, address), address)

    def test_hops_of_a_private_upstream_may_be_private(self) -> None:
        """Once its own address has been seen, but not this machine and not the metadata."""
        guard = Guard(Entry("corp", ("https://reg.corp",)))
        self.assertIsNotNone(guard.reason(CDN, "10.0.0.2"))
        guard.reason(Origin.of("https://reg.corp"), "10.0.0.1")
        self.assertIsNone(guard.reason(CDN, "10.0.0.2"))
        self.assertIsNotNone(guard.reason(CDN, "127.0.0.1"))
        self.assertIsNotNone(guard.reason(CDN, "169.254.169.254"))

    def test_a_name_that_is_global_too_makes_no_hop_private(self) -> None:
        """Whoever can redirect us from a global address could make his name private as well, before or after."""
        own = Origin.of("https://reg.example")
        for addresses in (("10.0.0.1", "8.8.8.8"), ("8.8.8.8", "10.0.0.1"), ("127.0.0.1", "8.8.8.8")):
            guard = Guard(Entry("corp", ("https://reg.example",)))
            for address in addresses:
                self.assertIsNone(guard.reason(own, address))
            for address in ("10.0.0.2", "127.0.0.1"):
                self.assertIsNotNone(guard.reason(CDN, address), (addresses, address))

    def test_a_name_server_does_not_open_this_machine(self) -> None:
        """Loopback counts only where the URL itself says it."""
        guard = Guard(Entry("corp", ("https://reg.example",)))
        self.assertIsNone(guard.reason(Origin.of("https://reg.example"), "127.0.0.1"))
        self.assertIsNotNone(guard.reason(CDN, "127.0.0.1"))

    def test_one_private_url_is_enough(self) -> None:
        """The others may be in the world."""
        guard = Guard(Entry("corp", ("http://10.0.0.1:5000", "https://reg.example")))
        guard.reason(Origin.of("https://reg.example"), "8.8.8.8")
        self.assertIsNone(guard.reason(CDN, "10.0.0.2"))

    def test_hops_of_a_loopback_upstream_may_be_loopback(self) -> None:
        """An address in the URL is known before anything is resolved."""
        guard = Guard(Entry("127.0.0.1:5000", ("http://127.0.0.1:5000",)))
        self.assertIsNone(guard.reason(Origin.of("http://127.0.0.1:5001"), "127.0.0.1"))
        self.assertIsNone(guard.reason(CDN, "::1"))
        self.assertIsNone(Guard(Entry("corp", ("http://localhost:5000",))).reason(CDN, "127.0.0.1"))

    def test_named_origins_lead_anywhere(self) -> None:
        """Scheme and port count; the realm that is named is one."""
        entry = Entry("corp", ("https://c",), origins=("https://cdn.corp:8443",), token_realm="https://sso.corp/token")
        guard = Guard(entry)
        self.assertIsNone(guard.reason(Origin.of("https://cdn.corp:8443/x?y"), "169.254.1.1"))
        self.assertIsNone(guard.reason(Origin.of("https://sso.corp"), "10.0.0.1"))
        self.assertIsNotNone(guard.reason(Origin.of("https://cdn.corp"), "10.0.0.1"))

    def test_the_refusal_names_the_key_to_set(self) -> None:
        """403, with the very line to write."""
        error = Guard(Entry("corp", ("https://c",))).refusal(CDN, "an address of a private network")
        self.assertEqual((error.code, error.status), ("DENIED", 403))
        self.assertIn("`origins: [https://cdn.example.net]`", error.message)
