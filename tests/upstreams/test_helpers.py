"""A helper is run once per reading, in bounded time and size, and nothing that it prints is shown."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from tests.upstreams.programs import Program, Starter
from txociproxy.upstreams.logins.accounts import Helper, Login, LoginUnavailable
from txociproxy.upstreams.logins.helpers import (
    DEFAULT_PATH,
    HELPER_S,
    MAX_OUTPUT_BYTES,
    HelperReader,
    find_program,
    login_from,
)
from txociproxy.upstreams.logins.keeper import Reading

SECRET = "s3cret-of-the-helper"
ANSWER = json.dumps({"ServerURL": "registry.example.com", "Username": "robot", "Secret": SECRET}).encode()
URL = "https://registry.example.com"


class HelperReaderTests(SynchronousTestCase):
    """What the program is given, and what becomes of what it does."""

    def setUp(self) -> None:
        """Begin with a reactor that starts programs."""
        self.reactor = Starter()
        self.sought: list[tuple[str, str]] = []

    def found(self, program: str, path: str) -> str | None:
        """Find every program in one place."""
        self.sought.append((program, path))
        return f"/opt/{program}"

    def read(self, account: Helper | None = None, url: str = URL) -> Deferred[Reading]:
        """Begin a reading."""
        reader = HelperReader(account or Helper("x"), url, self.reactor, InlineWorkers(), self.found)
        return Deferred.fromCoroutine(reader.read())

    def started(self, account: Helper | None = None, url: str = URL) -> tuple[Deferred[Reading], Program]:
        """Begin a reading, and return the program that it has started."""
        d = self.read(account, url)
        self.assertNoResult(d)
        return d, self.reactor.programs[-1]

    def assert_unavailable(self, d: Deferred[Any], *words: str) -> LoginUnavailable:
        """Assert that it failed with these words and no secret."""
        error: LoginUnavailable = self.failureResultOf(d, LoginUnavailable).value
        for word in ("docker-credential-x", *words):
            self.assertIn(word, str(error))
        self.assertNotIn(SECRET, repr(error))
        return error

    def test_it_asks_with_get_and_the_server_on_the_input(self) -> None:
        """No shell, no thread, no place to work in, nothing but three pipes: all else is left to the default."""
        _, program = self.started()
        self.assertEqual(
            (program.executable, program.args), ("/opt/docker-credential-x", ("docker-credential-x", "get"))
        )
        self.assertEqual((program.stdin, program.is_stdin_closed), (b"registry.example.com\n", True))
        self.assertEqual(program.other_arguments, {})

    def test_the_answer_is_the_login_for_the_lifetime_of_the_account(self) -> None:
        """However it is cut into pieces."""
        d, program = self.started(Helper("x", lifetime_s=77))
        program.prints(ANSWER[:5])
        program.ends(ANSWER[5:])
        self.assertEqual(self.successResultOf(d), Reading(Login("robot", SECRET), 77))
        self.assertEqual((program.signals, program.are_pipes_closed), ([], True))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_it_sees_the_account_s_environment_and_a_path_and_nothing_else(self) -> None:
        """An empty environment would mean ours to some; it never is empty."""
        _, program = self.started(Helper("x", environment=(("HOME", "/h"), ("X", "1"))))
        self.assertEqual(program.env, {"PATH": DEFAULT_PATH, "HOME": "/h", "X": "1"})
        _, program = self.started()
        self.assertEqual(program.env, {"PATH": DEFAULT_PATH})

    def test_a_path_of_the_account_s_own_is_used_to_find_it_too(self) -> None:
        """What it sees is where it was found."""
        _, program = self.started(Helper("x", environment=(("PATH", "/opt/a:/opt/b"),)))
        self.assertEqual(program.env, {"PATH": "/opt/a:/opt/b"})
        self.assertEqual(self.sought, [("docker-credential-x", "/opt/a:/opt/b")])

    def test_it_is_asked_for_the_server_as_docker_calls_it(self) -> None:
        """Unless the account names one."""
        for url, account, asked in (
            ("https://registry.example.com", Helper("x"), b"registry.example.com\n"),
            ("http://127.0.0.1:5000", Helper("x"), b"127.0.0.1:5000\n"),
            ("https://registry-1.docker.io", Helper("x"), b"https://index.docker.io/v1/\n"),
            ("https://registry.example.com", Helper("x", server="https://other.example"), b"https://other.example\n"),
        ):
            self.assertEqual(self.started(account, url)[1].stdin, asked)

    def test_a_program_that_is_not_there_is_named_with_the_path(self) -> None:
        """And nothing is started."""
        reader = HelperReader(Helper("x"), URL, self.reactor, InlineWorkers(), lambda program, path: None)
        self.assert_unavailable(Deferred.fromCoroutine(reader.read()), DEFAULT_PATH)
        self.assertEqual(self.reactor.programs, [])

    def test_a_program_that_cannot_be_started_is_named_with_the_reason(self) -> None:
        """The texts of others may repeat the environment."""
        self.reactor.refusal = OSError(errno.ENOEXEC, "Exec format error", SECRET)
        self.assert_unavailable(self.read(), "Exec format error")
        self.reactor.refusal = ValueError(SECRET)
        self.assert_unavailable(self.read(), "environment")
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_an_end_with_a_code_is_told_and_what_it_printed_is_not(self) -> None:
        """Helpers print errors on their output, and some print more."""
        d, program = self.started()
        program.prints(SECRET.encode(), to=2)
        program.ends(ANSWER, code=3)
        self.assertFalse(self.assert_unavailable(d, "code 3").timed_out)

    def test_an_end_by_a_signal_is_told(self) -> None:
        """Somebody else has killed it."""
        d, program = self.started()
        program.ends(ANSWER, code=None, signal=15)
        self.assert_unavailable(d, "signal 15")

    def test_the_end_and_the_last_piece_may_come_in_either_order(self) -> None:
        """Only both make the answer whole."""
        d, program = self.started()
        program.prints(ANSWER[:9])
        program.exits()
        self.assertNoResult(d)
        program.prints(ANSWER[9:])
        self.assertNotIn(SECRET, repr(program.protocol))
        program.closes()
        self.successResultOf(d)
        d, program = self.started()
        program.prints(ANSWER)
        program.closes()
        self.assertNoResult(d)
        program.exits()
        self.successResultOf(d)

    def test_a_child_it_leaves_behind_may_keep_the_error_output(self) -> None:
        """An agent that lives on does not make a pull wait."""
        d, program = self.started()
        program.prints(ANSWER)
        program.closes(1)
        program.exits()
        self.successResultOf(d)
        self.assertTrue(program.are_pipes_closed)

    def test_one_that_hangs_is_killed_after_ten_seconds(self) -> None:
        """Its late end changes nothing."""
        d, program = self.started()
        program.prints(ANSWER)
        self.reactor.advance(HELPER_S - 0.1)
        self.assertEqual(program.signals, [])
        self.reactor.advance(0.1)
        self.assertTrue(self.assert_unavailable(d, "10 s").timed_out)
        self.assertEqual((HELPER_S, program.signals, program.are_pipes_closed), (10.0, ["KILL"], True))
        program.ends(ANSWER, code=None, signal=9)

    def test_one_that_ended_while_a_child_holds_its_output_is_given_up_too(self) -> None:
        """There is nobody left to kill."""
        d, program = self.started()
        program.prints(ANSWER)
        program.exits()
        self.reactor.advance(HELPER_S)
        self.assert_unavailable(d, "10 s")
        self.assertEqual((program.signals, program.are_pipes_closed), ([], True))

    def test_one_that_prints_too_much_is_killed(self) -> None:
        """What still is in the pipe is dropped."""
        d, program = self.started()
        program.prints(b"x" * MAX_OUTPUT_BYTES)
        self.assertNoResult(d)
        program.prints(b"x")
        self.assert_unavailable(d, "65536")
        program.prints(b"x" * MAX_OUTPUT_BYTES)
        program.ends(code=None, signal=9)
        self.assertEqual((program.signals, program.are_pipes_closed), (["KILL"], True))
        self.assertEqual(len(program.protocol._printed), MAX_OUTPUT_BYTES + 1)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_what_it_prints_as_errors_is_dropped(self) -> None:
        """However much it is."""
        d, program = self.started()
        program.prints(b"x" * MAX_OUTPUT_BYTES * 2, to=2)
        program.ends(ANSWER)
        self.successResultOf(d)

    def test_cancelling_kills_it(self) -> None:
        """That is how a source stops."""
        d, program = self.started()
        d.cancel()
        self.failureResultOf(d)
        self.assertEqual((program.signals, program.are_pipes_closed), (["KILL"], True))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        program.ends(ANSWER, code=None, signal=9)

    def test_an_answer_that_is_none_is_named_and_not_shown(self) -> None:
        """Whatever it is."""
        for output, word in (
            (b"", "JSON"),
            (SECRET.encode(), "JSON"),
            (b"\xff\xfe{" + SECRET.encode(), "JSON"),
            (b"[" * 60_000, "JSON"),
            (b"[]", "Username"),
            (json.dumps({"Secret": SECRET}).encode(), "Username"),
            (json.dumps({"Username": "robot"}).encode(), "Secret"),
            (json.dumps({"Username": "", "Secret": SECRET}).encode(), "Username"),
            (json.dumps({"Username": "robot", "Secret": ""}).encode(), "Secret"),
            (json.dumps({"Username": 1, "Secret": SECRET}).encode(), "Username"),
            (json.dumps({"Username": "robot", "Secret": [SECRET]}).encode(), "Secret"),
        ):
            error = self.assertRaises(LoginUnavailable, login_from, output, "docker-credential-x")
            self.assertIn("docker-credential-x", str(error))
            self.assertIn(word, str(error))
            self.assertNotIn(SECRET, str(error))

    def test_half_a_character_is_no_login(self) -> None:
        """JSON can hold what cannot be sent; the pull must not end in an error that nobody expects."""
        for answer in (b'{"Username": "u", "Secret": "\\ud800"}', b'{"Username": "\\udc80", "Secret": "s"}'):
            self.assertRaises(LoginUnavailable, login_from, answer, "docker-credential-x")

    def test_an_identity_token_is_not_a_password(self) -> None:
        """The text says what to do."""
        output = json.dumps({"Username": "<token>", "Secret": SECRET}).encode()
        error = self.assertRaises(LoginUnavailable, login_from, output, "docker-credential-x")
        self.assertIn("access token", str(error))
        self.assertNotIn(SECRET, str(error))


class FindProgramTests(SynchronousTestCase):
    """Along the path, and nowhere else."""

    def setUp(self) -> None:
        """Make two directories."""
        self.root = Path(self.mktemp()).absolute()
        for name in ("a", "b"):
            (self.root / name).mkdir(parents=True)
        self.path = f"{self.root}/a:{self.root}/b"

    def put(self, directory: str, mode: int = 0o755) -> str:
        """Put a program somewhere."""
        place = self.root / directory / "prog"
        place.write_text("#!/bin/sh\n")
        place.chmod(mode)
        return str(place)

    def test_the_first_directory_that_has_it_wins(self) -> None:
        """As in a shell."""
        second = self.put("b")
        self.assertEqual(find_program("prog", self.path), second)
        first = self.put("a")
        self.assertEqual(find_program("prog", self.path), first)

    def test_what_cannot_be_run_is_passed_over(self) -> None:
        """A file without the bit, a directory, nothing."""
        (self.root / "a" / "prog").mkdir()
        self.assertIsNone(find_program("prog", self.path))
        self.put("b", 0o644)
        self.assertIsNone(find_program("prog", self.path))

    def test_directories_that_are_not_absolute_are_passed_over(self) -> None:
        """What runs must not depend on where the proxy was started."""
        self.put("a")
        relative = os.path.relpath(self.root / "a")
        self.assertTrue(os.path.isfile(f"{relative}/prog"))
        self.assertIsNone(find_program("prog", f"{relative}::."))
