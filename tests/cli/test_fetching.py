"""Redirects, challenges and whom a password is shown to; connections are answered in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from email.message import Message
from typing import Any, cast

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.cli.fetching import Fetcher, Login, Refused
from txociproxy.cli.places import Place, place_of_url
from txociproxy.cli.waiting import Deadline, WireError
from txociproxy.cli.wire import Wire

CACHE = "http://cache.test:8080"
REALM = f"{CACHE}/v2/_token/docker.io"
BEARER = {"WWW-Authenticate": f'Bearer realm="{REALM}",service="ociproxy",scope="repository:a:pull"'}


@define(eq=False)
class FakeResponse:
    """What http.client gives back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(factory=dict)
    length: int | None = 0

    def getheaders(self) -> list[tuple[str, str]]:
        """Return all header fields."""
        message = Message()
        for name, value in self.headers.items():
            message[name] = value
        return list(message.items())

    def read(self, most: int) -> bytes:
        """Return the next piece."""
        piece, self.body = self.body[:most], self.body[most:]
        return piece


Handler = Callable[[str, dict[str, str]], FakeResponse]


@define(eq=False)
class FakeWire:
    """A connection that a test answers.

    :ivar dies: the next request finds it closed by the other side.
    """

    place: Place
    handler: Handler
    dies: bool = False
    closed: bool = False
    _asked: tuple[str, dict[str, str]] | None = None

    def request(self, method: str, target: str, headers: dict[str, str]) -> None:
        """Take a request."""
        assert method == "GET" and not self.closed
        self._asked = target, headers

    def getresponse(self) -> FakeResponse:
        """Answer it."""
        assert self._asked is not None
        if self.dies:
            raise ConnectionResetError
        target, headers = self._asked
        return self.handler(f"{self.place.text}{target}", headers)

    def end(self) -> None:
        """Be closed."""
        self.closed = True


class FetcherTests(SynchronousTestCase):
    """A client as simple as can be, and no simpler."""

    def setUp(self) -> None:
        """Nothing has been asked."""
        self.asked: list[tuple[str, str | None]] = []
        self.wires: list[FakeWire] = []

    def fetcher(self, handler: Handler, login: Login | None = None, base: str = CACHE) -> Fetcher:
        """Return one whose requests go to the handler, with what they show noted."""

        def note(url: str, headers: dict[str, str]) -> FakeResponse:
            self.asked.append((url, headers.get("Authorization")))
            return handler(url, headers)

        def opened(place: Place) -> Wire:
            self.wires.append(FakeWire(place, note))
            return cast(Wire, self.wires[-1])

        return Fetcher(place_of_url(base), Deadline.after(60), opened, login)

    def test_one_connection_for_all(self) -> None:
        """It is kept, and closed at the end."""
        fetcher = self.fetcher(lambda url, headers: FakeResponse(200, b"x"))
        self.assertEqual([fetcher.get(target).whole(9) for target in ("/a", "/b?c=d")], [b"x", b"x"])
        self.assertEqual(self.asked, [(f"{CACHE}/a", None), (f"{CACHE}/b?c=d", None)])
        self.assertEqual(len(self.wires), 1)
        fetcher.close()
        self.assertTrue(self.wires[0].closed)

    def test_a_connection_that_was_closed_meanwhile(self) -> None:
        """Another one is opened, once; a fresh one that fails has failed."""
        fetcher = self.fetcher(lambda url, headers: FakeResponse(200, b"x"))
        fetcher.get("/a").whole(9)
        self.wires[0].dies = True
        self.assertEqual(fetcher.get("/b").whole(9), b"x")
        self.assertEqual([wire.closed for wire in self.wires], [True, False])

        def fail(url: str, headers: dict[str, str]) -> FakeResponse:
            raise ConnectionResetError

        self.assertRaises(WireError, self.fetcher(fail).get, "/a")
        self.assertEqual(len(self.wires), 3)

    def test_a_body_that_breaks_off(self) -> None:
        """Is no body, although http.client does not say so."""
        fetcher = self.fetcher(lambda url, headers: FakeResponse(200, b"half", length=4))
        self.assertIn("broke off", str(self.assertRaises(WireError, fetcher.get("/a").whole, 99)))

    def test_a_body_that_is_too_long(self) -> None:
        """Is not read to its end."""
        fetcher = self.fetcher(lambda url, headers: FakeResponse(200, b"x" * 10))
        self.assertRaises(WireError, fetcher.get("/a").whole, 9)

    def test_a_redirect_hides_who_we_are(self) -> None:
        """What we show the cache, nobody else sees."""

        def handler(url: str, headers: dict[str, str]) -> FakeResponse:
            if url == f"{CACHE}/blob":
                if "Authorization" not in headers:
                    return FakeResponse(401, headers={"WWW-Authenticate": 'Basic realm="cache"'})
                return FakeResponse(307, headers={"Location": "https://bucket.test/b?sig=1"})
            return FakeResponse(200, b"content")

        fetcher = self.fetcher(handler, Login("ci", "secret"))
        self.assertEqual(fetcher.get("/blob").whole(99), b"content")
        shown = "Basic " + base64.b64encode(b"ci:secret").decode()
        self.assertEqual(
            self.asked, [(f"{CACHE}/blob", None), (f"{CACHE}/blob", shown), ("https://bucket.test/b?sig=1", None)]
        )

    def test_redirects_that_lead_nowhere(self) -> None:
        """In a circle, to no URL, to a socket, and from TLS to none."""
        for location in ("/again", "", "ftp://x/", "unix:/run/docker.sock", "http://["):
            fetcher = self.fetcher(lambda url, headers, to=location: FakeResponse(302, headers={"Location": to}))  # type: ignore[misc]
            self.assertRaises(WireError, fetcher.get, "/a")
        self.assertLess(len(self.asked), 40)
        secure = self.fetcher(
            lambda url, headers: FakeResponse(302, headers={"Location": "http://cache.test/"}),
            base="https://cache.test",
        )
        self.assertIn("from https to http", str(self.assertRaises(WireError, secure.get, "/a")))

    def test_a_token(self) -> None:
        """The realm is asked for what the challenge says, and the token shown from then on."""

        def handler(url: str, headers: dict[str, str]) -> FakeResponse:
            if "_token" in url:
                return FakeResponse(200, json.dumps({"access_token": "t"}).encode())
            is_known = headers.get("Authorization") == "Bearer t"
            return FakeResponse(200, b"x") if is_known else FakeResponse(401, b"", BEARER)

        fetcher = self.fetcher(handler)
        self.assertEqual([fetcher.get("/a").status, fetcher.get("/b").status], [200, 200])
        realm = f"{REALM}?service=ociproxy&scope=repository%3Aa%3Apull"
        self.assertEqual(
            self.asked,
            [(f"{CACHE}/a", None), (realm, None), (f"{CACHE}/a", "Bearer t"), (f"{CACHE}/b", "Bearer t")],
        )

    def test_a_token_is_asked_for_once(self) -> None:
        """A refusal that stays is the answer."""
        token, refusal = b'{"token":"t"}', FakeResponse(401, b"", BEARER)
        fetcher = self.fetcher(lambda url, headers: FakeResponse(200, token) if "_token" in url else refusal)
        self.assertEqual(fetcher.get("/a").status, 401)
        self.assertEqual(len(self.asked), 3)

    def test_a_challenge_can_be_what_is_wanted(self) -> None:
        """Nothing is answered then."""
        fetcher = self.fetcher(lambda url, headers: FakeResponse(401, b"", BEARER), Login("ci", "secret"))
        self.assertEqual(fetcher.get("/v2/", logs_in=False).status, 401)
        self.assertEqual(self.asked, [(f"{CACHE}/v2/", None)])

    def test_a_password_goes_to_the_cache_only(self) -> None:
        """Its token server may have another port, but no other host, and no less TLS."""

        def handler_for(realm: str) -> Handler:
            challenge = {"WWW-Authenticate": f'Bearer realm="{realm}"'}
            return lambda url, headers: (
                FakeResponse(200, b'{"token":"t"}') if url.startswith(realm) else FakeResponse(401, b"", challenge)
            )

        login = Login("ci", "secret")
        for realm, base in (("https://evil.test/t", CACHE), ("http://cache.test/t", "https://cache.test")):
            self.asked.clear()
            error = self.assertRaises(WireError, self.fetcher(handler_for(realm), login, base).get, "/a")
            self.assertIn("public_url", str(error))
            self.assertEqual(self.asked, [(f"{base}/a", None)])
        self.asked.clear()
        self.fetcher(handler_for("https://cache.test:5001/t"), login).get("/a")
        self.assertEqual(self.asked[1], ("https://cache.test:5001/t", login.basic()))
        self.fetcher(handler_for("https://evil.test/t")).get("/a")  # nothing is shown, so nothing is lost

    def test_no_token(self) -> None:
        """A refusal has its status; anything else is none."""

        def handler_of(answer: FakeResponse) -> Handler:
            return lambda url, headers: answer if "_token" in url else FakeResponse(401, b"", BEARER)

        refused: Any = self.assertRaises(Refused, self.fetcher(handler_of(FakeResponse(403))).get, "/a")
        self.assertEqual(refused.status, 403)
        for body in (b"", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nb"}', b'{"token": ""}'):
            self.assertRaises(WireError, self.fetcher(handler_of(FakeResponse(200, body))).get, "/a")

    def test_a_password_is_not_printed(self) -> None:
        """Not even by accident."""
        self.assertNotIn("secret", repr(Login("ci", "secret")))
        self.assertNotIn("secret", repr(self.fetcher(lambda url, headers: FakeResponse(200), Login("ci", "secret"))))
