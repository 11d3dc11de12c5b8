"""Tokens: one ask per key, kept for their life (RULES C7)."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.asking import parse_token
from txociproxy.upstreams.tokens import Issued, Place, Token, TokenKey, TokenRefused, Tokens, Wanted

KEY = TokenKey("ns", "https://realm", "svc", "repository:a:pull")


class TokensTests(SynchronousTestCase):
    """The store of tokens, its server scripted by Deferreds."""

    def setUp(self) -> None:
        """Begin without any."""
        self.clock = Clock()
        self.tokens = Tokens(self.clock, max_tokens=2)
        self.asks: list[Deferred[Token]] = []

    async def ask(self, key: TokenKey) -> Token:
        """Ask the scripted server."""
        deferred: Deferred[Token] = Deferred()
        self.asks.append(deferred)
        return await deferred

    def token(self, key: TokenKey = KEY, rejected: Token | None = None) -> Deferred[Issued]:
        """Want a token."""
        return Deferred.fromCoroutine(self.tokens.token(key, self.ask, rejected))

    def issue(self, value: str, life_s: float = 60.0) -> Token:
        """Let the server answer its last ask."""
        token = Token(value, self.clock.seconds() + life_s)
        self.asks[-1].callback(token)
        return token

    def test_one_ask_for_all_who_want_it(self) -> None:
        """Each has a Deferred of its own; later ones get it from the store."""
        waiting = [self.token() for _ in range(3)]
        self.assertEqual(len(self.asks), 1)
        token = self.issue("t")
        self.assertEqual([self.successResultOf(d) for d in waiting], [Issued(token, True)] * 3)
        self.assertEqual(self.successResultOf(self.token()), Issued(token, False))

    def test_other_keys_are_other_asks(self) -> None:
        """Namespace, scope and credential count."""
        for key in (KEY, TokenKey("ns", "https://realm", "svc", "x"), TokenKey("ns", "https://realm", "svc", "x", "c")):
            self.token(key)
        self.assertEqual(len(self.asks), 3)

    def test_a_waiter_that_leaves_takes_nobody_with_it(self) -> None:
        """Not even the first."""
        first, second = self.token(), self.token()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.issue("t")
        self.assertEqual(self.successResultOf(second).token.value, "t")

    def test_an_ask_that_all_have_left_is_finished_and_joined(self) -> None:
        """The next pull wants it."""
        first = self.token()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second = self.token()
        self.assertEqual(len(self.asks), 1)
        self.issue("t")
        self.assertEqual(self.successResultOf(second).token.value, "t")

    def test_a_token_at_its_end_is_asked_anew(self) -> None:
        """At the second that its value says."""
        self.token()
        self.issue("t", 60.0)
        self.clock.advance(59.9)
        self.assertFalse(self.successResultOf(self.token()).fresh)
        self.clock.advance(0.1)
        self.assertNoResult(self.token())
        self.assertEqual(len(self.asks), 2)

    def test_a_rejected_token_is_not_given_again(self) -> None:
        """But one that somebody else fetched meanwhile is."""
        self.token()
        old = self.issue("old")
        waiting = self.token(rejected=old)
        new = self.issue("new")
        self.assertEqual(self.successResultOf(waiting), Issued(new, True))
        self.assertEqual(self.successResultOf(self.token(rejected=old)), Issued(new, False))

    def test_a_failure_is_told_to_all_and_not_kept(self) -> None:
        """The next one asks again."""
        waiting = [self.token(), self.token()]
        self.asks[0].errback(TokenRefused("no"))
        for deferred in waiting:
            self.failureResultOf(deferred, TokenRefused)
        self.token()
        self.assertEqual(len(self.asks), 2)

    def test_the_store_is_bounded(self) -> None:
        """A5: the longest unused goes."""
        for scope in ("a", "b"):
            self.token(TokenKey("ns", "r", None, scope))
            self.issue(scope)
        self.successResultOf(self.token(TokenKey("ns", "r", None, "a")))
        self.token(TokenKey("ns", "r", None, "c"))
        self.issue("c")
        self.assertEqual(self.successResultOf(self.token(TokenKey("ns", "r", None, "a"))).token.value, "a")
        self.assertNoResult(self.token(TokenKey("ns", "r", None, "b")))

    def test_what_a_place_wants_is_remembered_and_forgotten(self) -> None:
        """By URL and repository."""
        place = Place("https://reg", "a")
        wanted = Wanted("bearer", "https://realm", "svc")
        self.tokens.learn(place, wanted)
        self.assertEqual(self.tokens.learned(place), wanted)
        self.assertIsNone(self.tokens.learned(Place("https://reg", "b")))
        self.tokens.forget(place)
        self.assertIsNone(self.tokens.learned(place))

    def test_stopping_ends_all_asks(self) -> None:
        """Whoever waits is told."""
        waiting = self.token()
        self.tokens.stop()
        self.failureResultOf(waiting, CancelledError)

    def test_tokens_are_not_printed(self) -> None:
        """Secrets stay secret."""
        self.assertNotIn("secret", repr(Issued(Token("secret", 1.0), True)))

    def test_a_mark_tells_credentials_apart_and_nothing_about_them(self) -> None:
        """The same in one process, another in the next: it cannot be looked up in a table of passwords."""
        mark = self.tokens.mark("Basic YTpi")
        self.assertEqual(mark, self.tokens.mark("Basic YTpi"))
        self.assertNotEqual(mark, self.tokens.mark("Basic YTpj"))
        self.assertNotEqual(mark, Tokens(self.clock).mark("Basic YTpi"))


class ParseTokenTests(SynchronousTestCase):
    """What token servers say."""

    def life_s(self, **fields: object) -> float:
        """Return the seconds that such a token is good for."""
        return parse_token(json.dumps({"token": "t", **fields}).encode(), 1000.0).good_until_s - 1000.0

    def test_both_names_of_the_token_are_known(self) -> None:
        """``token`` first, as the specification has it."""
        self.assertEqual(parse_token(b'{"access_token":"a"}', 0).value, "a")
        self.assertEqual(parse_token(b'{"token":"t","access_token":"a"}', 0).value, "t")
        self.assertEqual(parse_token(b'{"token":"","access_token":"a"}', 0).authorization, "Bearer a")

    def test_a_life_is_60_seconds_unless_said(self) -> None:
        """A tenth early, at most 30 s; nonsense is as good as nothing; none lives over a day."""
        nonsense: tuple[object, ...] = (None, 0, -5, "300", True, [], float("nan"))
        for expires_in in nonsense:
            self.assertEqual(self.life_s(expires_in=expires_in), 54.0, expires_in)
        self.assertEqual(self.life_s(), 54.0)
        self.assertEqual(self.life_s(expires_in=300), 270.0)
        self.assertEqual(self.life_s(expires_in=3600), 3570.0)
        for far in (1e12, 10**1000):
            self.assertEqual(self.life_s(expires_in=far), 24 * 3600 - 30.0)

    def test_nonsense_is_an_outage(self) -> None:
        """A token that could end a header line too."""
        for text in (b"", b"<html>", b"[]", b"{}", b'{"token":1}', b'{"token":"a\\r\\nX: y"}', b'{"token":"a b"}'):
            self.assertRaises(UpstreamUnreachable, parse_token, text, 0.0)
        self.assertRaises(UpstreamUnreachable, parse_token, b"[" * 60000, 0.0)

    def test_any_bytes_are_a_token_or_an_outage(self) -> None:
        """Nothing else comes out."""

        @settings(deadline=None, max_examples=200)
        @given(
            st.one_of(
                st.binary(), st.recursive(st.text() | st.floats(), st.lists).map(lambda v: json.dumps(v).encode())
            )
        )
        def holds(data: bytes) -> None:
            self.assertRaises(UpstreamUnreachable, parse_token, data, 0.0)

        holds()
