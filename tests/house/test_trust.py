"""Who sees whose credentials, and who finds what they brought, through the whole house (RULES B7, C6, D3)."""

from __future__ import annotations

import base64

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.cache.place import content
from tests.house.whole import WholeHouse
from tests.upstreams.fakes import Answer, FakeNet, answer
from txociproxy.oci.names import Digest
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.logins.accounts import Password

PRIVATE, OPEN = content(50_000, 1), content(50_000, 2)
OURS = "Basic " + base64.b64encode(b"us:our password").decode()
THEIRS = "Basic " + base64.b64encode(b"them:their password").decode()
DEFAULT = Entry("default.example", ("https://default.example",))
OWNED = Entry(
    "owned.example",
    ("https://owned.example",),
    hosts=("owned.cache",),
    account=Password("us", "our password"),
    refused=("team/secret",),
)
IGNORING = Entry("ignoring.example", ("https://ignoring.example",), client_credentials="ignore")
STRANGE = "strange.example"


class TrustCase(SynchronousTestCase):
    """A proxy with three upstreams, and one that nobody has configured."""

    def setUp(self) -> None:
        """Open the house; every upstream wants to see a password, but what is open is for all."""
        self.house = WholeHouse(self.answer, DEFAULT, OWNED, IGNORING, unlisted="public")
        self.headers: list[Headers] = []

    @property
    def net(self) -> FakeNet:
        """What upstreams were asked."""
        return self.house.net

    def answer(self, method: str, url: str, headers: Headers) -> Answer:
        """Answer as all of them: a token server beside a registry that has two blobs."""
        self.headers.append(headers)
        if "/token" in url:
            return answer(200, b'{"token":"anybody"}')
        if str(Digest.of(OPEN)) in url and not url.startswith("https://default.example"):
            return answer(200, OPEN)
        shown = headers.getRawHeaders("authorization", [""])[0]
        if shown != OURS or "owned.example" not in url:
            host = url.split("/")[2]
            challenge = f'Bearer realm="https://{host}/token",service="x"' if "owned" not in host else "Basic"
            return answer(401, b"{}", www_authenticate=challenge)
        return answer(200, PRIVATE) if str(Digest.of(PRIVATE)) in url else answer(404, b"{}")

    def blob(self, name: str, data: bytes, *fields: tuple[str, str]) -> int:
        """Pull a blob from what a client calls so; returns the status, and proves the body of a 200."""
        got = self.house.get(f"/v2/{name}/blobs/{Digest.of(data)}", *fields)
        self.assertEqual(got.body == data, got.status == 200)
        return got.status


class HeldTests(TrustCase):
    """Content that our own credentials have brought."""

    def setUp(self) -> None:
        """Bring it."""
        super().setUp()
        self.assertEqual(self.blob("owned.example/team/app", PRIVATE), 200)
        self.net.asked.clear()

    def test_its_own_namespace_finds_it_however_it_is_named(self) -> None:
        """By path, by ``ns=`` and by Host; upstream is not asked."""
        self.assertEqual(self.blob("owned.example/team/app", PRIVATE), 200)
        self.assertEqual(self.blob("team/app", PRIVATE, ("Host", "owned.cache")), 200)
        named = self.house.get(f"/v2/team/app/blobs/{Digest.of(PRIVATE)}?ns=owned.example")
        self.assertEqual((named.status, named.body), (200, PRIVATE))
        self.assertEqual(self.net.asked, [])

    def test_no_other_namespace_finds_it(self) -> None:
        """None named, another one, one that ignores credentials, one that nobody configured: their upstreams decide."""
        for name in ("team/app", "ignoring.example/team/app", f"{STRANGE}/team/app"):
            self.assertEqual(self.blob(name, PRIVATE), 401, name)
            self.assertEqual(self.blob(name, PRIVATE, ("Range", "bytes=0-9")), 401, name)
            head = self.house.ask("HEAD", f"/v2/{name}/blobs/{Digest.of(PRIVATE)}")
            self.assertEqual(head.status, 401, name)

    def test_a_refused_repository_does_not_find_it(self) -> None:
        """403, and nobody is asked (RULES B7)."""
        self.assertEqual(self.blob("owned.example/team/secret", PRIVATE), 403)
        self.assertEqual(self.blob("team/secret", PRIVATE, ("Host", "owned.cache")), 403)
        self.assertEqual(self.net.asked, [])

    def test_our_password_went_to_its_own_upstream_only(self) -> None:
        """Whatever was pulled from others meanwhile."""
        self.test_no_other_namespace_finds_it()
        for _, url, authorization in self.net.asked:
            self.assertNotEqual(authorization, OURS, url)


class StrangerTests(TrustCase):
    """Upstreams that must not see what clients hold for the cache."""

    def assert_nothing_was_shown(self) -> None:
        """No password, no cookie, and no password to a token server; tokens for anybody only."""
        self.assertNotEqual(self.net.asked, [])
        for (_, url, authorization), headers in zip(self.net.asked, self.headers, strict=True):
            self.assertIn(authorization, (None, "Bearer anybody"), url)
            self.assertFalse(headers.hasHeader("cookie"), url)
            self.assertNotIn("their", url)

    def test_what_clients_send_stays_here(self) -> None:
        """Passwords and tokens that came as they are, and those that our token endpoint was shown."""
        cookie = ("Cookie", "session=1")
        for namespace in (STRANGE, "ignoring.example"):
            for shown in (THEIRS, "Bearer their token"):
                self.assertEqual(self.blob(f"{namespace}/team/app", OPEN, ("Authorization", shown), cookie), 200)
                self.house.storage.content.clear()
                self.assertEqual(self.blob(f"{namespace}/team/app", PRIVATE, ("Authorization", shown), cookie), 401)
            scope = f"repository:{namespace}/team/app:pull"
            token = self.house.get(f"/v2/_token/{namespace}?scope={scope}", ("Authorization", THEIRS), cookie)
            self.assertEqual(token.status, 200)
            self.house.get(f"/v2/?ns={namespace}", ("Authorization", THEIRS), cookie)
        self.assert_nothing_was_shown()

    def test_one_that_forwards_sees_it(self) -> None:
        """Else the test above could not fail."""
        self.blob("team/app", PRIVATE, ("Authorization", THEIRS))
        self.assertIn(THEIRS, [authorization for *_, authorization in self.net.asked])

    def test_addresses_are_nobodys_names(self) -> None:
        """An address in ``ns=`` is refused before anybody is asked (RULES F1)."""
        for ns in ("127.0.0.1", "169.254.169.254", "10.0.0.1:5000", "%5B::1%5D", "localhost", "2130706433", "0x7f.1"):
            got = self.house.get(f"/v2/team/app/blobs/{Digest.of(OPEN)}?ns={ns}")
            self.assertIn(got.status, (400, 403), ns)
        self.assertEqual(self.net.asked, [])
