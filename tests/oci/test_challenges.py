"""Challenges and scopes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.oci.challenges import (
    MAX_CHALLENGE_BYTES,
    MAX_CHALLENGES,
    MAX_PARAMETERS,
    MAX_SCOPES,
    Challenge,
    Scope,
    basic,
    bearer,
    parse_challenges,
    parse_scopes,
)

BASIC = Challenge("basic", (("realm", "x"),))


class ParseChallengesTests(SynchronousTestCase):
    """WWW-Authenticate of any registry."""

    def test_what_registries_send(self) -> None:
        """Quoted commas, several challenges in one line or many, odd case, unquoted URLs, blanks for commas."""
        hub = Challenge("bearer", (("realm", "https://a/t"), ("service", "s"), ("scope", "repository:x:pull,push")))
        table = {
            'Bearer realm="https://a/t",service="s",scope="repository:x:pull,push"': (hub,),
            'BEARER Realm = "https://a/t" , SERVICE=s,,scope="repository:x:pull,push",': (hub,),
            'bearer realm=https://a/t service="s" scope="repository:x:pull,push"': (hub,),
            'Basic realm="x", Bearer realm="https://a/t?a=b&c=d"': (
                BASIC,
                Challenge("bearer", (("realm", "https://a/t?a=b&c=d"),)),
            ),
            'Negotiate, Basic realm="x"': (Challenge("negotiate"), BASIC),
            'Negotiate YWJj==, Basic realm="x"': (Challenge("negotiate"), BASIC),
            'NTLM abc , Basic realm="x"': (Challenge("ntlm"), BASIC),
            'Basic realm="a \\"b\\" \\\\ c, d"': (Challenge("basic", (("realm", 'a "b" \\ c, d'),)),),
            'Basic realm=""': (Challenge("basic", (("realm", ""),)),),
            ', ,Basic realm="x"': (BASIC,),
            "Basic": (Challenge("basic"),),
            # By RFC 9110 §11.2 this is a token68, odd as it looks.
            "Bearer realm=, Basic": (Challenge("bearer"), Challenge("basic")),
            "": (),
            " , ": (),
        }
        for line, challenges in table.items():
            self.assertEqual(challenges, parse_challenges([line]), line)

    def test_all_lines_count(self) -> None:
        """Challenges of several lines come in their order."""
        lines = ['Basic realm="x"', "Negotiate"]
        self.assertEqual((BASIC, Challenge("negotiate")), parse_challenges(lines))

    def test_the_first_of_two_parameters_counts(self) -> None:
        """A name stands once; parameters are found by their lower-case name."""
        (challenge,) = parse_challenges(['Bearer realm="a",REALM="b"'])
        self.assertEqual("a", challenge.get("realm"))
        self.assertIsNone(challenge.get("scope"))

    def test_what_is_malformed_is_dropped(self) -> None:
        """An open quote or other nonsense spoils its challenge and what follows, not what came before."""
        for line in (
            'Bearer realm="x',
            'Bearer realm="a"b, Basic',
            'Bearer realm="x";, Basic',
            "=",
            '"',
            "\u00e4",
            'realm="x"',
        ):
            self.assertEqual((), parse_challenges([line]), line)
        self.assertEqual((BASIC,), parse_challenges(['Basic realm="x", Bearer realm="y', "Bearer ="]))

    def test_bounds(self) -> None:
        """A hostile upstream cannot make us keep more than this (RULES C7)."""
        self.assertEqual((), parse_challenges(['Basic realm="' + "x" * MAX_CHALLENGE_BYTES + '"']))
        self.assertEqual(MAX_CHALLENGES, len(parse_challenges(["a, b, c, d, e, f"] * 9)))
        fields = [f'p{number}="x"' for number in range(MAX_PARAMETERS + 1)]
        self.assertEqual((), parse_challenges(["Bearer " + ",".join(fields)]))
        self.assertEqual(1, len(parse_challenges(["Bearer " + ",".join(fields[1:])])))

    def test_hostile_lines_are_read_in_no_time(self) -> None:
        """Eight KiB of anything cost little; more than linear time would hang this test."""
        for piece in ('a="', '"\\', "a ", "a=b ", "a,", "= ", ", ", 'a="\\'):
            parse_challenges([piece * (MAX_CHALLENGE_BYTES // len(piece))] * 20)

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.text() | st.text('Bearer ealm="\\,/:x'), max_size=3))
    def test_any_lines_parse(self, lines: list[str]) -> None:
        """Nothing raises, and the bounds hold."""
        challenges = parse_challenges(lines)
        self.assertLessEqual(len(challenges), MAX_CHALLENGES)
        for challenge in challenges:
            self.assertEqual(challenge.scheme.lower(), challenge.scheme)
            self.assertLessEqual(len(challenge.parameters), MAX_PARAMETERS)


class BearerTests(SynchronousTestCase):
    """The challenge that we make (RULES C3)."""

    def test_form(self) -> None:
        """Clients get realm, service, scope and, with a bad token, the error."""
        self.assertEqual('Bearer realm="r",service="s"', bearer("r", "s", None))
        self.assertEqual('Bearer realm="r",service="s",scope="c",error="e"', bearer("r", "s", "c", "e"))

    def test_a_value_cannot_end_the_field(self) -> None:
        """Controls are left out, quotes are escaped."""
        self.assertEqual('Bearer realm="a\\"b\\\\c",service="d"', bearer('a"b\\c\r\n', "d\u00e4", None))

    @settings(deadline=None, max_examples=100)
    @given(*[st.text(st.characters(min_codepoint=32, max_codepoint=126))] * 3)
    def test_reads_back(self, realm: str, service: str, scope: str) -> None:
        """What we send is what our own parser reads."""
        expected = Challenge("bearer", (("realm", realm), ("service", service), ("scope", scope)))
        self.assertEqual((expected,), parse_challenges([bearer(realm, service, scope)]))


class ScopeTests(SynchronousTestCase):
    """Scopes that clients and registries name."""

    def test_scopes_print_back(self) -> None:
        """The name may have a host with a port; the actions may be none."""
        table = {
            "repository:library/alpine:pull": Scope("repository", "library/alpine", ("pull",)),
            "repository:h:5000/a:pull,push": Scope("repository", "h:5000/a", ("pull", "push")),
            "repository(plugin):a:pull": Scope("repository(plugin)", "a", ("pull",)),
            "registry:catalog:*": Scope("registry", "catalog", ("*",)),
            "repository:a:": Scope("repository", "a", ()),
        }
        for text, scope in table.items():
            self.assertEqual(scope, Scope.parse(text))
            self.assertEqual(text, str(scope))

    def test_nonsense_is_none(self) -> None:
        """What is no scope asks for nothing."""
        for text in ("", "repository", "repository:a", ":a:pull", "repository::pull", "repository:a:PULL",
                     "repository:a:pull,", "repository:a b:pull", "repository:\u00e4:pull", "repository:a\n:pull",
                     "repository:a:pull\n"):  # fmt: skip
            self.assertIsNone(Scope.parse(text), text)

    def test_several_values_with_several_scopes(self) -> None:
        """All parameters count, each may hold several; doubles and nonsense go, and so does what is too much."""
        self.assertEqual(
            (Scope("repository", "a", ("pull",)), Scope("repository", "b", ("pull",))),
            parse_scopes(["repository:a:pull  repository:b:pull", "x", "repository:a:pull"]),
        )
        self.assertEqual(MAX_SCOPES, len(parse_scopes([f"repository:a{number}:pull" for number in range(20)])))
        self.assertEqual((), parse_scopes([]))

    @settings(deadline=None, max_examples=200)
    @given(st.text() | st.from_regex(r"[a-z:/,*]{0,30}", fullmatch=True))
    def test_any_text_is_a_scope_that_prints_back_or_none(self, text: str) -> None:
        """Parsing loses nothing."""
        scope = Scope.parse(text)
        self.assertTrue(scope is None or str(scope) == text)


class BasicTests(SynchronousTestCase):
    """The value of an Authorization field with a name and a password."""

    def test_the_bytes_are_not_judged(self) -> None:
        """RFC 7617 section 2 has this pair; which characters are meant is for who asks."""
        self.assertEqual(basic(b"Aladdin:open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        self.assertEqual(basic("ü:£".encode("latin-1")), "Basic /Dqj")
