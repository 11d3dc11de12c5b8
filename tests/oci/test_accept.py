"""Accept classes (RULES E7)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.oci import strategies
from txociproxy.oci.accept import (
    EVERYTHING,
    MAX_TYPES,
    AcceptClass,
    accept_class,
    accept_field,
    answers,
)
from txociproxy.oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1,
    SCHEMA1_SIGNED,
)

classes = st.frozensets(strategies.media_types, min_size=1) | st.just(EVERYTHING)


class AcceptClassTests(SynchronousTestCase):
    """From lines to a class."""

    def test_all_lines_count_in_any_order(self) -> None:
        """docker sends each type on a line of its own; the order says nothing."""
        expected = frozenset({OCI_INDEX, OCI_MANIFEST, DOCKER_LIST})
        self.assertEqual(expected, accept_class([OCI_INDEX, OCI_MANIFEST, DOCKER_LIST]))
        self.assertEqual(expected, accept_class([f"{DOCKER_LIST},{OCI_INDEX} ,  {OCI_MANIFEST}"]))

    def test_parameters_and_case_do_not_count(self) -> None:
        """Weights, other parameters and case make no class of their own."""
        lines = [f"{OCI_INDEX.upper()};q=0.5", f'{OCI_MANIFEST}; x="a,b;q=0" ;q=1']
        self.assertEqual(frozenset({OCI_INDEX}), accept_class(lines[:1]))
        self.assertIn(OCI_INDEX, accept_class(lines))

    def test_quoted_commas_do_not_split(self) -> None:
        """A comma in quotes belongs to its element, an open quote reaches to the end."""
        self.assertEqual(frozenset({OCI_INDEX}), accept_class([f'{OCI_INDEX};a="x,{OCI_MANIFEST}"']))
        self.assertEqual(frozenset({OCI_INDEX}), accept_class([f'{OCI_INDEX};a="\\"x,{OCI_MANIFEST}']))
        self.assertEqual(frozenset({OCI_INDEX}), accept_class([f'{OCI_INDEX};a="\\']))

    def test_weight_zero_is_out(self) -> None:
        """What the client refuses is not asked for."""
        for weight in ("q=0", "Q=0.000", " q = 0.", "q=0;x=1"):
            self.assertEqual(frozenset({OCI_INDEX}), accept_class([f"{OCI_INDEX},{OCI_MANIFEST};{weight}"]), weight)
        self.assertEqual(frozenset({OCI_MANIFEST}), accept_class([f"{OCI_MANIFEST};q=0.001"]))

    def test_everything(self) -> None:
        """Absent, empty, ``*/*`` and ``application/*`` take all."""
        for lines in ([], [""], [" , "], ["*/*"], ["application/*;q=0.1"], [OCI_INDEX, "*/*;q=0.8"], ["nonsense"]):
            self.assertEqual(EVERYTHING, accept_class(lines), lines)

    def test_schema1_does_not_count_beside_modern_types(self) -> None:
        """An old type in a modern list makes no other class; alone it is one."""
        self.assertEqual(accept_class([OCI_INDEX]), accept_class([f"{OCI_INDEX}, {SCHEMA1}"]))
        docker = [*MANIFEST_TYPES, SCHEMA1_SIGNED, "application/json"]
        self.assertEqual(accept_class(MANIFEST_TYPES), accept_class(docker), "docker and skopeo are of one class")
        self.assertEqual(frozenset({SCHEMA1}), accept_class([SCHEMA1]))
        self.assertEqual(frozenset({"application/json"}), accept_class(["application/json"]))
        self.assertEqual(frozenset({SCHEMA1, "text/plain"}), accept_class([f"{SCHEMA1}, text/plain"]))

    def test_what_could_break_a_field_is_dropped(self) -> None:
        """Nothing malformed and nothing endless goes upstream."""
        self.assertEqual(
            EVERYTHING, accept_class(["a/b\r\nX: y", "a b/c", "/", "a/", "*/b", "a" * 120 + "/" + "b" * 10])
        )
        self.assertEqual(MAX_TYPES, len(accept_class([f"a/t{number}" for number in range(100)])))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.text() | st.text('ab/*,;q=0"\\ '), max_size=4))
    def test_any_lines_make_a_class_that_reads_back(self, lines: list[str]) -> None:
        """Every text makes a class, which reads back from the field it makes and is safe to send."""
        cls = accept_class(lines)
        self.assertEqual(cls, accept_class([accept_field(cls)]))
        self.assertTrue(accept_field(cls).isascii() and accept_field(cls).isprintable())
        self.assertTrue(0 < len(cls) <= MAX_TYPES)

    def test_a_long_hostile_line_is_read_in_no_time(self) -> None:
        """128 KiB of quotes and backslashes cost linear time; a square of it would hang this test."""
        accept_class(['"\\' * 65536, '\\"' * 65536, '"' * 131071, ";" * 131072, "; " * 65536])


class AnswersTests(SynchronousTestCase):
    """Which pointer answers whom."""

    def test_an_equal_class_is_answered(self) -> None:
        """Same question, same answer, whatever the type."""
        narrow = frozenset({DOCKER_MANIFEST})
        self.assertTrue(answers(narrow, "text/odd", narrow))
        self.assertTrue(answers(EVERYTHING, DOCKER_LIST, EVERYTHING))

    def test_a_narrower_ask_is_answered_if_it_takes_the_type(self) -> None:
        """A wide pointer serves a narrow client only with a type that this client takes."""
        wide = frozenset(MANIFEST_TYPES)
        self.assertTrue(answers(wide, OCI_INDEX, frozenset({OCI_INDEX, OCI_MANIFEST})))
        self.assertTrue(answers(EVERYTHING, f"{OCI_INDEX}; charset=utf-8".upper(), frozenset({OCI_INDEX})))
        self.assertFalse(answers(wide, OCI_INDEX, frozenset({OCI_MANIFEST})))
        self.assertFalse(answers(EVERYTHING, OCI_INDEX, frozenset({DOCKER_MANIFEST})))

    def test_a_narrower_pointer_never_answers_a_wider_ask(self) -> None:
        """Else one old client gives amd64 to arm64 nodes."""
        narrow = frozenset({DOCKER_MANIFEST})
        self.assertFalse(answers(narrow, DOCKER_MANIFEST, frozenset({DOCKER_MANIFEST, DOCKER_LIST})))
        self.assertFalse(answers(narrow, DOCKER_MANIFEST, EVERYTHING))
        self.assertFalse(answers(narrow | {OCI_INDEX}, DOCKER_MANIFEST, narrow | {DOCKER_LIST}))

    @settings(deadline=None, max_examples=200)
    @given(classes, strategies.media_types, classes)
    def test_an_answer_is_always_one_that_the_client_takes(
        self, pointer: AcceptClass, media_type: str, asked: AcceptClass
    ) -> None:
        """Across classes only a type that was asked for ever comes."""
        if pointer != asked and answers(pointer, media_type, asked):
            self.assertIn(media_type, asked)
            self.assertTrue(pointer == EVERYTHING or asked < pointer)


class PrintingTests(SynchronousTestCase):
    """What goes upstream, and what stands in a pointer."""

    def test_everything_asks_for_the_modern_types_first(self) -> None:
        """A registry that looks only at the list gives an index rather than schema1."""
        self.assertEqual(
            f"{OCI_INDEX}, {DOCKER_LIST}, {OCI_MANIFEST}, {DOCKER_MANIFEST}, */*", accept_field(EVERYTHING)
        )

    def test_a_class_asks_for_itself(self) -> None:
        """Equal classes print equally."""
        self.assertEqual("a/b, c/d", accept_field(frozenset({"c/d", "a/b"})))
