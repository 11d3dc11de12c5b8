"""Where a proxy can be asked: the same configuration, read with the eyes of a neighbour."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.cli.places import Place, place_of_url, places_said
from txociproxy.config import ConfigError

BOTH = ("127.0.0.1", "::1")


class UrlTests(SynchronousTestCase):
    """Addresses that somebody writes."""

    def test_addresses(self) -> None:
        """Host, port and TLS; a path behind them is nobody's business here."""
        self.assertEqual(place_of_url("http://a.b"), Place("http://a.b", ("a.b",), 80))
        self.assertEqual(place_of_url("https://a.b/x"), Place("https://a.b", ("a.b",), 443, tls=True))
        self.assertEqual(place_of_url("https://[::1]:9/"), Place("https://[::1]:9", ("::1",), 9, tls=True))
        self.assertEqual(place_of_url("unix:/run/x.sock"), Place("unix:/run/x.sock", path="/run/x.sock"))

    def test_others(self) -> None:
        """Refused with the remedy, and without what may be a password."""
        for url in (
            "",
            "127.0.0.1:80",
            "ftp://a",
            "http://",
            "http://a:x",
            "http://[::1",
            "http://u:secret@a",
            "unix:x",
        ):
            error = self.assertRaises(ValueError, place_of_url, url)
            self.assertIn("write http://HOST:PORT", str(error))
            self.assertNotIn("secret", str(error))


class PlacesTests(SynchronousTestCase):
    """Doors of a configuration."""

    def places(self, *listen: str, **environ: str) -> tuple[Place, ...]:
        """Return the places that these options and variables mean."""
        places, trouble = places_said({"listen": list(listen)}, environ)
        self.assertIsNone(trouble)
        return places

    def at(self, listen: str, **environ: str) -> tuple[tuple[str, ...], int, bool]:
        """Return hosts, port and TLS of one door."""
        (place,) = self.places(listen, **environ)
        return place.hosts, place.port, place.tls

    def test_nothing_said(self) -> None:
        """The default of the proxy, on loopback; IPv4 first."""
        self.assertEqual(self.places(), (Place(":8080", BOTH, 8080),))

    def test_addresses(self) -> None:
        """Whoever listens everywhere is on loopback too."""
        self.assertEqual(self.at(":81"), (BOTH, 81, False))
        self.assertEqual(self.at("0.0.0.0:81"), (BOTH[:1], 81, False))
        self.assertEqual(self.at("[::]:81"), (("::1", "127.0.0.1"), 81, False))
        self.assertEqual(self.at("10.0.0.5:81"), (("10.0.0.5",), 81, False))
        self.assertEqual(self.at("[fe80::1]:81"), (("fe80::1",), 81, False))
        self.assertEqual(self.at("tcp:81"), (BOTH, 81, False))
        self.assertEqual(self.at("tcp:port=81:interface=10.0.0.5:backlog=7"), (("10.0.0.5",), 81, False))
        self.assertEqual(self.at(r"tcp6:81:interface=fe80\:\:1"), (("fe80::1",), 81, False))
        self.assertEqual(self.at("tcp6:81"), (("::1", "127.0.0.1"), 81, False))

    def test_unix_sockets(self) -> None:
        """They never speak TLS unless it is said."""
        self.assertEqual(
            self.places("unix:/run/a.sock", TLS_CERT="x", GENERATE_SELF_SIGNED_TLS="true"),
            (Place("unix:/run/a.sock", path="/run/a.sock"),),
        )
        (place,) = self.places("https://unix:/run/a.sock")
        self.assertEqual((place.path, place.tls), ("/run/a.sock", True))

    def test_tls(self) -> None:
        """Where a certificate is, unless http:// says no; where https:// says so."""
        cert = {"OCIPROXY_TLS_CERT": "/c.pem"}
        self.assertEqual(self.at(":81", **cert), (BOTH, 81, True))
        self.assertEqual(self.at("http://:81", **cert), (BOTH, 81, False))
        self.assertEqual(self.at("https://:81"), (BOTH, 81, True))
        self.assertEqual(self.at(":81", GENERATE_SELF_SIGNED_TLS="yes"), (BOTH, 81, True))
        self.assertEqual(self.at(":81", GENERATE_SELF_SIGNED_TLS="no"), (BOTH, 81, False))

    def test_self_signed_has_a_port_of_its_own(self) -> None:
        """As the proxy itself."""
        self.assertEqual(self.places(GENERATE_SELF_SIGNED_TLS="true"), (Place(":8443", BOTH, 8443, tls=True),))

    def test_the_admin_door_comes_first(self) -> None:
        """It is plain unless it says otherwise, also where clients meet TLS."""
        places = self.places(":81", OCIPROXY_ADMIN_LISTEN="127.0.0.1:90", OCIPROXY_TLS_CERT="/c.pem")
        self.assertEqual([(place.port, place.tls) for place in places], [(90, False), (81, True)])
        places = self.places(":81", OCIPROXY_ADMIN_LISTEN="https://127.0.0.1:90", OCIPROXY_TLS_CERT="/c.pem")
        self.assertEqual([(place.port, place.tls) for place in places], [(90, True), (81, True)])

    def test_doors_that_want_a_certificate_come_last(self) -> None:
        """One that can be asked without tells more."""
        tls = {"OCIPROXY_TLS_CERT": "/c.pem", "OCIPROXY_TLS_CLIENT_CA": "/ca.pem"}
        places = self.places(":81", "http://:82", "unix:/s", **tls)
        self.assertEqual(
            [(place.text, place.wants_certificate) for place in places],
            [("http://:82", False), ("unix:/s", False), (":81", True)],
        )

    def test_what_nobody_can_know(self) -> None:
        """Sockets of systemd, a port that the system chooses, endpoints of others."""
        self.assertEqual(self.places("systemd:", ":0", "tcp:0", "systemd:domain=INET:index=0"), ())

    def test_where_it_is_said(self) -> None:
        """An option wins over the environment, that over the file; lists as in each of them."""
        file = Path(self.mktemp())
        file.write_text("listen: [':83', ':84']\nadmin_listen: ':90'\n")
        config = {"config": str(file)}
        places, _ = places_said({**config, "listen": [":81"]}, {"LISTEN_ADDR": ":82"})
        self.assertEqual([place.port for place in places], [90, 81])
        places, _ = places_said(config, {"LISTEN_ADDR": ":82,:85", "OCIPROXY_ADMIN_LISTEN": ":91"})
        self.assertEqual([place.port for place in places], [91, 82, 85])
        places, _ = places_said({}, {"OCIPROXY_CONFIG": str(file)})
        self.assertEqual([place.port for place in places], [90, 83, 84])

    def test_a_file_that_was_broken_later(self) -> None:
        """The proxy goes on with what it has; so does the look for it, and the trouble is told."""
        file = Path(self.mktemp())
        file.write_text("listne: ':83'\n")
        places, trouble = places_said({"config": str(file)}, {"LISTEN_ADDR": ":82"})
        self.assertEqual([place.port for place in places], [82])
        self.assertIn("did you mean listen?", str(trouble))

    def test_an_environment_that_the_proxy_would_refuse(self) -> None:
        """Refused here too."""
        self.assertRaises(ConfigError, places_said, {}, {"OCIPROXY_LISTNE": ":82"})
        self.assertRaises(ConfigError, places_said, {"listen": ["nonsense"]}, {})
