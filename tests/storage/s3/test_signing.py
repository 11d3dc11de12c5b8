"""Presigned URLs: the SDK signs the same, and nobody gets one that outlives the credentials."""

from __future__ import annotations

import time
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl, urlsplit

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.server import fresh
from txociproxy.storage.s3.signing import Base, Identity, Signer
from txociproxy.storage.s3.trouble import S3Trouble

NOW_S = 1_800_000_000.25
WORDS = st.text("ABCabc012/+=:é&", min_size=1, max_size=20)


@define(eq=False)
class Source:
    """Gives the identity that the test sets, or fails."""

    identity: Identity | S3Trouble
    taken: int = 0

    def take(self) -> Identity:
        """Give it."""
        self.taken += 1
        if isinstance(self.identity, S3Trouble):
            raise self.identity
        return self.identity


def make(identity: Identity | None = None, url: str = "https://s3.test/bucket", public: str | None = None) -> Signer:
    """Make a signer with one identity."""
    source = Source(identity or Identity("AK", "SK"))
    return Signer(source.take, "us-east-1", Base.of(url), Base.of(public or url))


def parts(url: str) -> dict[str, str]:
    """Return the parameters of a URL."""
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def by_the_sdk(method: str, url: str, key: str, region: str, identity: Identity, now_s: float, life_s: int) -> str:
    """Return what the SDK signs at a given time; it has no other way to be told the time."""
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials
    from botocore.utils import percent_encode

    credentials = Credentials(identity.access_key, identity.secret_key, identity.token)
    auth = S3SigV4QueryAuth(credentials, "s3", region, expires=life_s)
    request = AWSRequest(method, f"{url}/{percent_encode(key, safe='/~')}")
    request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    auth._modify_request_before_signing(request)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    auth._inject_signature_to_request(request, auth.signature(text, request))
    return str(request.url)


class SigningTests(SynchronousTestCase):
    """What is in a URL."""

    @settings(deadline=None)
    @given(
        st.sampled_from(["GET", "HEAD"]),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
        st.integers(1, 7 * 24 * 3600),
        st.floats(0, 4e9),
        st.tuples(WORDS, WORDS, st.none() | WORDS),
        st.sampled_from(["us-east-1", "garage", "eu west/1"]),
        st.sampled_from(
            ["http://127.0.0.1:9000/b", "https://b.s3.test", "https://s3.test/under/b%20c", "http://[::1]:81/b"]
        ),
    )
    def test_the_sdk_signs_the_same(
        self, method: Any, key: str, life_s: int, now_s: float, keys: Any, region: str, url: str
    ) -> None:
        """Whatever the key, the time, the credentials and the bucket are called."""
        identity = Identity(*keys)
        signer = Signer(lambda: identity, region, Base.of(url), Base.of(url))
        ours, _ = signer.presign(method, key, life_s, int(now_s))
        theirs = by_the_sdk(method, url, key, region, identity, int(now_s), life_s)
        self.assertEqual(ours.partition("?")[0], theirs.partition("?")[0])
        self.assertEqual(parts(ours), parts(theirs))

    def test_nothing_but_the_host_is_signed_with_it(self) -> None:
        """So a client may send a Range, and nothing of what it sends has to be known."""
        url, _ = make().presign("GET", "k", 900, NOW_S)
        self.assertEqual(parts(url)["X-Amz-SignedHeaders"], "host")

    def test_head_and_get_are_signed_apart(self) -> None:
        """The URL for one does not do for the other."""
        signer = make()
        both: list[Literal["GET", "HEAD"]] = ["GET", "HEAD"]
        signed = {parts(signer.presign(method, "k", 900, NOW_S)[0])["X-Amz-Signature"] for method in both}
        self.assertEqual(len(signed), 2)

    def test_a_sessions_token_is_in_the_url(self) -> None:
        """Without it AWS knows no key that begins with ASIA."""
        url, _ = make(Identity("ASIA", "SK", "token/with+odd=signs")).presign("GET", "k", 900, NOW_S)
        self.assertEqual(parts(url)["X-Amz-Security-Token"], "token/with+odd=signs")

    def test_the_schemes_own_port_is_left_out(self) -> None:
        """Clients leave it out of the Host field, which is signed."""
        urls = ("https://S3.test:443/b", "http://s3.test:80/b/", "https://s3.test:80/b")
        self.assertEqual([Base.of(url).host for url in urls], ["s3.test", "s3.test", "s3.test:80"])
        self.assertEqual(Base.of("http://s3.test:80/b/").url, "http://s3.test/b")

    def test_clients_get_their_own_name_of_the_bucket(self) -> None:
        """It is another host, so it is signed for that host."""
        signer = make(url="http://10.0.0.1:9000/b", public="https://s3.example.test/b")
        inside, _ = signer.presign("GET", "k", 900, NOW_S)
        outside, _ = signer.presign("GET", "k", 900, NOW_S, public=True)
        self.assertEqual([urlsplit(url).netloc for url in (inside, outside)], ["10.0.0.1:9000", "s3.example.test"])
        self.assertNotEqual(parts(inside)["X-Amz-Signature"], parts(outside)["X-Amz-Signature"])

    def test_every_signature_is_counted(self) -> None:
        """The count shows whether addresses are shared."""
        signer = make()
        for _ in range(3):
            signer.presign("HEAD", "k", 900, NOW_S)
        self.assertEqual(signer.count, 3)

    def test_a_server_finds_the_key_again(self) -> None:
        """Colons, spaces, plus signs and slashes are as S3 wants them."""
        here = fresh()
        for key in ("a/b:c d+e~f%20.json", "tags/localhost:5000/x/_tags/1+2.json", "é/&=?#"):
            here.plant(key, key.encode())
            url, _ = here.connection.signer.presign("GET", key, 60, time.time())
            answer: Any = self.successResultOf(here.agent.request(b"GET", url.encode()))
            self.assertEqual((answer.code, answer.body), (200, key.encode()))


class LifeTests(SynchronousTestCase):
    """For how long a URL is good."""

    def life(self, life_s: float, ends_at_s: float | None = None, now_s: float = NOW_S) -> tuple[int, float]:
        """Return what is signed, and what is told."""
        url, told_s = make(Identity("AK", "SK", "T", ends_at_s)).presign("GET", "k", life_s, now_s)
        return int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]), told_s

    def test_it_is_as_long_as_was_asked(self) -> None:
        """The signature counts from the whole second before; what is told is never more than is true."""
        self.assertEqual(self.life(900), (900, 899.75))
        self.assertEqual(self.life(900, now_s=int(NOW_S)), (900, 900.0))

    def test_it_ends_with_the_credentials(self) -> None:
        """A server refuses what was signed by a session that has ended."""
        self.assertEqual(self.life(900, NOW_S + 100), (100, 99.75))
        self.assertEqual(self.life(900, NOW_S + 5000), (900, 899.75))

    def test_a_signature_of_dead_credentials_is_good_for_nothing(self) -> None:
        """It is told so; the URL itself is well-formed."""
        self.assertEqual(self.life(900, NOW_S - 1), (1, 0.0))
        self.assertEqual(self.life(900, NOW_S + 0.5), (1, 0.5))

    def test_a_week_is_the_most(self) -> None:
        """S3 refuses more."""
        self.assertEqual(self.life(10**9)[0], 7 * 24 * 3600)


class IdentityTests(SynchronousTestCase):
    """Whose signature it is."""

    def test_signing_takes_no_identity(self) -> None:
        """That may block; only a refresh does it, and what is signed after it is signed by the new one."""
        source = Source(Identity("OLD", "SK"))
        signer = Signer(source.take, "us-east-1", Base.of("http://s3.test/b"), Base.of("http://s3.test/b"))
        source.identity = Identity("NEW", "SK")
        before, _ = signer.presign("GET", "k", 900, NOW_S)
        self.assertEqual((source.taken, parts(before)["X-Amz-Credential"][:3]), (1, "OLD"))
        signer.refresh()
        after, _ = signer.presign("GET", "k", 900, NOW_S)
        self.assertEqual(parts(after)["X-Amz-Credential"], "NEW/20270115/us-east-1/s3/aws4_request")

    def test_a_refresh_that_fails_leaves_the_old_one(self) -> None:
        """It may be good for a while yet."""
        source = Source(Identity("OLD", "SK"))
        signer = Signer(source.take, "us-east-1", Base.of("http://s3.test/b"), Base.of("http://s3.test/b"))
        source.identity = S3Trouble("refused", "NoCredentials", "test")
        self.assertRaises(S3Trouble, signer.refresh)
        self.assertIn("OLD", signer.presign("GET", "k", 900, NOW_S)[0])

    def test_keys_are_in_no_repr(self) -> None:
        """Neither the signer's nor the identity's."""
        identity = Identity("AKEY", "ASECRET", "ATOKEN", 1.0)
        for text in (repr(identity), repr(make(identity))):
            for secret in ("AKEY", "ASECRET", "ATOKEN"):
                self.assertNotIn(secret, text)
