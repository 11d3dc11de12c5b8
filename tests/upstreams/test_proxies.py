"""Which proxy stands between us and an origin."""

from __future__ import annotations

from base64 import b64decode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.connecting.proxies import OutboundProxies, Proxy
from txociproxy.upstreams.origins import Origin

SECURE, PLAIN = Proxy("secure", 1), Proxy("plain", 2)


class EnvironTests(SynchronousTestCase):
    """The variables, as everybody else reads them."""

    def test_none_is_none(self) -> None:
        """The default, and empty values."""
        for environ in ({}, {"HTTPS_PROXY": "", "http_proxy": " ", "NO_PROXY": "*"}):
            found = OutboundProxies.from_environ(environ)
            self.assertEqual((found.is_set, found.https, found.http), (False, None, None))
        self.assertEqual(OutboundProxies(), OutboundProxies.from_environ({}))

    def test_each_scheme_has_its_own(self) -> None:
        """Neither stands in for the other."""
        found = OutboundProxies.from_environ({"HTTPS_PROXY": "http://secure:1", "http_proxy": "plain:2"})
        self.assertEqual(found, OutboundProxies(SECURE, PLAIN))
        self.assertEqual(found.proxy_for(Origin.of("https://reg.example")), SECURE)
        self.assertEqual(found.proxy_for(Origin.of("http://reg.example")), PLAIN)
        only = OutboundProxies.from_environ({"https_proxy": "secure:1"})
        self.assertTrue(only.is_set)
        self.assertIsNone(only.proxy_for(Origin.of("http://reg.example")))

    def test_lower_case_wins_also_when_it_is_empty(self) -> None:
        """Which is how one turns it off."""
        environ = {"HTTPS_PROXY": "upper:1", "https_proxy": "lower:1", "HTTP_PROXY": "upper:1", "http_proxy": ""}
        found = OutboundProxies.from_environ({**environ, "NO_PROXY": "*", "no_proxy": "a.example"})
        self.assertEqual((found.https, found.http), (Proxy("lower", 1), None))
        self.assertIsNone(found.proxy_for(Origin.of("https://a.example")))
        self.assertIsNotNone(found.proxy_for(Origin.of("https://b.example")))

    def test_forms_of_a_proxy(self) -> None:
        """Scheme and port may be left out; passwords are percent-decoded."""
        for text, host, port in (
            ("proxy", "proxy", 3128),
            ("proxy:8080", "proxy", 8080),
            ("http://Proxy.Example:80/", "proxy.example", 80),
            ("http://[fd00::1]:3128", "fd00::1", 3128),
            ("http://10.0.0.1", "10.0.0.1", 3128),
        ):
            self.assertEqual(Proxy.parse(text), Proxy(host, port))
        found = Proxy.parse("http://us%65r:p%40ss%3Aword@proxy:3128")
        assert found.authorization is not None
        self.assertEqual(b64decode(found.authorization.removeprefix("Basic ")), b"user:p@ss:word")

    def test_what_cannot_be_used_names_the_variable_and_nothing_else(self) -> None:
        """Its value may be a password."""
        for text in (
            *("https://user:hunter2@proxy:3128", "socks5://user:hunter2@proxy", "http://user:hunter2@"),
            *("http://hunter2/x", "http://proxy:99999?hunter2", "http://user:hunter2@proxy:port"),
            *("http://user:hunter2@proxy:0", "hunter2 x", "http://user:hunter2@pro xy:1"),
            *("http://user:hunter2@[::1:1", "http://user:hunter2\n@proxy", "http://\u00fcser:hunter2@proxy"),
        ):
            for variable in ("https_proxy", "HTTP_PROXY"):
                said = str(self.assertRaises(ValueError, OutboundProxies.from_environ, {variable: text}))
                self.assertTrue(said.startswith(f"{variable}: the value "), said)
                self.assertNotIn("hunt", said)
                self.assertEqual(len(said.splitlines()), 1)
        error = self.assertRaises(ValueError, OutboundProxies.from_environ, {"https_proxy": "https://proxy"})
        self.assertIn("https:// proxy, which is not offered", str(error))

    def test_nothing_secret_is_printed(self) -> None:
        """Neither by repr nor by str."""
        found = OutboundProxies.from_environ({"https_proxy": "http://user:hunter2@proxy:3128"})
        assert found.https is not None and found.https.authorization is not None
        secret = found.https.authorization
        for text in (repr(found), str(found), repr(found.https), str(found.https)):
            self.assertNotIn("hunter2", text)
            self.assertNotIn(secret.removeprefix("Basic "), text)
        self.assertEqual(str(found.https), "proxy:3128")
        self.assertEqual(str(Proxy("::1", 1)), "[::1]:1")

    def test_any_text_is_read_or_refused(self) -> None:
        """No value of a variable is a traceback."""

        @settings(deadline=None, max_examples=300)
        @given(st.text(), st.text())
        def holds(proxy: str, exceptions: str) -> None:
            try:
                found = OutboundProxies.from_environ({"https_proxy": proxy, "no_proxy": exceptions})
            except ValueError as error:
                self.assertTrue(str(error).startswith("https_proxy: "))
            else:
                found.proxy_for(Origin.of("https://reg.example"))

        holds()


class ExceptionTests(SynchronousTestCase):
    """Who is reached without a proxy."""

    def is_direct(self, no_proxy: str, url: str) -> bool:
        """Say whether there is no proxy for a URL."""
        environ = {"https_proxy": "secure:1", "http_proxy": "plain:2", "no_proxy": no_proxy}
        return OutboundProxies.from_environ(environ).proxy_for(Origin.of(url)) is None

    def test_this_machine_is_always_reached_without(self) -> None:
        """By every name that it has; other machines are not."""
        for host in (
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "127.1",
            "2130706433",
            "LOCALHOST.",
        ):
            self.assertTrue(self.is_direct("", f"http://{host}:5000"), host)
        for host in ("reg.example", "notlocalhost", "localhost.example", "10.0.0.1", "[fd00::1]"):
            self.assertFalse(self.is_direct("", f"http://{host}:5000"), host)

    def test_items_of_no_proxy(self) -> None:
        """As Go's clients have them, since these stand beside us."""
        for item, direct, proxied in (
            ("reg.example", "reg.example a.reg.example REG.example", "xreg.example example reg.example.org"),
            ("Reg.Example.", "reg.example a.reg.example", "reg.example.org"),
            (".reg.example", "a.reg.example", "reg.example xreg.example"),
            ("*.reg.example", "a.reg.example b.a.reg.example", "reg.example"),
            ("reg.example:5000", "reg.example:5000 a.reg.example:5000", "reg.example reg.example:5001"),
            ("10.0.0.1", "10.0.0.1 10.0.0.1:5000", "10.0.0.2 reg.example"),
            ("10.0.0.1:5000", "10.0.0.1:5000", "10.0.0.1"),
            ("10.0.0.0/8", "10.0.0.1 10.255.255.255:5000", "11.0.0.1 10.example"),
            ("10.1.2.3/8", "10.0.0.1", "11.0.0.1"),
            ("fd00::/8", "[fd00::1]", "[2001:db8::1] reg.example"),
            ("fd00::1", "[fd00::1]:5000", "[fd00::2]"),
            ("[fd00::1]:5000", "[fd00::1]:5000", "[fd00::1] [fd00::2]:5000"),
            ("*", "reg.example 10.0.0.1:5000 [fd00::1]", ""),
            ("a.example, b.example\tc.example", "a.example b.example c.example", "d.example"),
            ("  ,, ,", "", "reg.example"),
            (":::, /, [, :80, .", "", "reg.example 10.0.0.1"),
        ):
            for place in direct.split():
                self.assertTrue(self.is_direct(item, f"http://{place}"), (item, place))
            for place in proxied.split():
                self.assertFalse(self.is_direct(item, f"http://{place}"), (item, place))
