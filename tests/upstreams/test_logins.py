"""Every kind of account becomes a source of logins."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from tests.upstreams.programs import Starter
from txociproxy.upstreams.logins.accounts import (
    Account,
    DockerConfig,
    Ecr,
    Helper,
    Login,
    LoginSource,
    LoginUnavailable,
    Password,
    PasswordFile,
)
from txociproxy.upstreams.logins.keeper import FAILURE_S, READING_S, REFUSED_S
from txociproxy.upstreams.logins.secret_files import MAX_PASSWORD_BYTES
from txociproxy.upstreams.logins.sources import PASSWORD_FILE_KEPT_S, source_of

URL = "https://registry.example.com"
SECRET = "s3cret-of-the-account"


@define(eq=False)
class CountingWorkers(InlineWorkers):
    """Workers that work at once and count."""

    jobs: int = 0

    def run(self, function: Any, *args: Any) -> Deferred[Any]:
        """Count and call."""
        self.jobs += 1
        return super().run(function, *args)


class SourceTests(SynchronousTestCase):
    """Sources over a reactor that starts nothing, and files in a directory of the test's own."""

    def setUp(self) -> None:
        """Begin."""
        self.reactor, self.workers = Starter(), CountingWorkers()
        self.path = Path(self.mktemp()).absolute()

    def source(self, account: Account) -> LoginSource:
        """Return the source of an account."""
        return source_of(account, URL, self.reactor, self.workers)

    def ask(self, source: LoginSource) -> Deferred[Login]:
        """Ask it."""

        async def asking() -> Login:
            return await source.login()

        return Deferred.fromCoroutine(asking())

    def login(self, source: LoginSource) -> Login:
        """Return what it says at once."""
        return self.successResultOf(self.ask(source))

    def refusal(self, source: LoginSource) -> str:
        """Return why there is none; it shows no secret."""
        text = str(self.failureResultOf(self.ask(source), LoginUnavailable).value)
        self.assertNotIn(SECRET, text)
        return text

    def answer(self, password: str) -> bytes:
        """Return what a helper prints."""
        return json.dumps({"ServerURL": "", "Username": "robot", "Secret": password}).encode()


class FixedTests(SourceTests):
    """A password in the configuration."""

    def test_it_is_what_was_configured_whatever_is_said_of_it(self) -> None:
        """There is no other."""
        source = self.source(Password("robot", SECRET))
        source.refused(self.login(source))
        source.stop()
        self.assertEqual((self.login(source), self.workers.jobs), (Login("robot", SECRET), 0))


class PasswordFileTests(SourceTests):
    """A password in a file."""

    def file(self, content: bytes | None) -> LoginSource:
        """Return the source of a file with this content."""
        if content is not None:
            self.path.write_bytes(content)
        return self.source(PasswordFile("robot", str(self.path)))

    def test_the_last_line_end_does_not_count(self) -> None:
        """One of them, of either kind; blanks do."""
        for content, password in (
            (b"pass", "pass"),
            (b"pass\n", "pass"),
            (b"pass\r\n", "pass"),
            (b"pass\n\n", "pass\n"),
            (b" pass \n", " pass "),
            (b"pass\r", "pass\r"),
            ("pässword\n".encode(), "pässword"),
            (b"x" * MAX_PASSWORD_BYTES, "x" * MAX_PASSWORD_BYTES),
        ):
            self.assertEqual(self.login(self.file(content)), Login("robot", password))

    def test_it_is_read_in_a_thread_and_again_after_a_minute(self) -> None:
        """A file may be replaced at any time."""
        source = self.file(b"one")
        self.assertEqual(self.workers.jobs, 0)
        self.assertEqual(self.login(source).password, "one")
        self.file(b"two")
        self.reactor.advance(PASSWORD_FILE_KEPT_S - 0.1)
        self.assertEqual((self.login(source).password, self.workers.jobs), ("one", 1))
        self.reactor.advance(0.1)
        self.assertEqual((self.login(source).password, self.workers.jobs), ("two", 2))
        self.assertEqual(PASSWORD_FILE_KEPT_S, 60.0)

    def test_a_refused_password_is_read_afresh(self) -> None:
        """It was replaced a moment ago."""
        source = self.file(b"one")
        login = self.login(source)
        self.file(b"two")
        self.reactor.advance(REFUSED_S)
        source.refused(login)
        self.assertEqual(self.login(source).password, "two")

    def test_what_is_wrong_names_the_file_and_not_what_is_in_it(self) -> None:
        """Empty, missing, too large, not text."""
        for content, word in (
            (None, "No such file"),
            (b"", "empty"),
            (b"\r\n", "empty"),
            (b"x" * (MAX_PASSWORD_BYTES + 1), "65536"),
            (SECRET.encode() + b"\xff", "UTF-8"),
        ):
            text = self.refusal(self.file(content))
            self.assertIn(str(self.path), text)
            self.assertIn(word, text)

    def test_what_is_not_a_file_is_not_read(self) -> None:
        """A pipe would hold the thread until somebody writes, a device for ever."""
        self.path.mkdir()
        self.assertIn("cannot be read", self.refusal(self.file(None)))
        self.path.rmdir()
        os.mkfifo(self.path)
        self.assertIn("not a regular file", self.refusal(self.file(None)))
        self.assertIn("not a regular file", self.refusal(self.source(PasswordFile("robot", "/dev/zero"))))
        self.assertIn("not a path", self.refusal(self.source(PasswordFile("robot", "a\0b"))))

    def test_a_link_is_followed(self) -> None:
        """Mounted secrets are links."""
        self.path.symlink_to(self.path.with_name("target"))
        self.assertEqual(self.login(self.file(b"pass\n")).password, "pass")

    def test_a_missing_file_is_not_sought_for_every_pull(self) -> None:
        """And is found soon after it has come."""
        source = self.file(None)
        for _ in range(3):
            self.refusal(source)
        self.assertEqual(self.workers.jobs, 1)
        self.reactor.advance(FAILURE_S)
        self.path.write_bytes(b"pass")
        self.assertEqual(self.login(source).password, "pass")


class HelperTests(SourceTests):
    """A program of the account's own."""

    def setUp(self) -> None:
        """Put a program where the account looks for it; it is never run."""
        super().setUp()
        self.path.mkdir()
        for name in ("one", "two"):
            program = self.path / f"docker-credential-{name}"
            program.touch(0o755)
            program.chmod(0o755)
        self.environment = (("PATH", str(self.path)),)

    def test_it_is_run_once_for_its_lifetime(self) -> None:
        """By everybody together."""
        source = self.source(Helper("one", lifetime_s=100, environment=self.environment))
        asks = [self.ask(source) for _ in range(3)]
        self.reactor.programs[0].ends(self.answer("a"))
        self.assertEqual([self.successResultOf(d).password for d in asks], ["a"] * 3)
        self.reactor.advance(99)
        self.assertEqual(self.login(source).password, "a")
        self.reactor.advance(1)
        self.assertNoResult(self.ask(source))
        self.assertEqual([p.executable for p in self.reactor.programs], [f"{self.path}/docker-credential-one"] * 2)

    def test_stopping_kills_the_one_that_runs(self) -> None:
        """Who waits is told."""
        source = self.source(Helper("one", environment=self.environment))
        d = self.ask(source)
        source.stop()
        self.failureResultOf(d, LoginUnavailable)
        self.assertEqual(self.reactor.programs[0].signals, ["KILL"])

    def test_a_name_that_leads_elsewhere_is_no_name(self) -> None:
        """Nor one that a shell or a path might read otherwise."""
        for name in ("", "../x", "a/b", "-x", ".x", "X", "a b", "a\n", "a;b", "é"):
            error = self.assertRaises(ValueError, Helper, name)
            self.assertIn("docker-credential-", str(error))
        for name in ("pass", "ecr-login", "desktop.exe", "gcr_2", "1"):
            Helper(name)

    def docker(self, config: object) -> DockerConfig:
        """Return an account with a file of docker's."""
        file = self.path / "config.json"
        file.write_text(json.dumps(config))
        return DockerConfig(str(file), self.environment)

    def test_a_helper_of_docker_s_is_run_with_what_the_account_lets_it_see(self) -> None:
        """And not again while its answer lives, though the file is read again."""
        source = self.source(self.docker({"credsStore": "two"}))
        d = self.ask(source)
        (program,) = self.reactor.programs
        self.assertEqual((program.env, program.stdin), ({"PATH": str(self.path)}, b"registry.example.com\n"))
        program.ends(self.answer("a"))
        self.successResultOf(d)
        jobs = self.workers.jobs
        self.reactor.advance(60)
        self.assertEqual((self.login(source).password, len(self.reactor.programs)), ("a", 1))
        self.assertEqual(self.workers.jobs, jobs + 1)

    def test_a_refused_login_of_docker_s_helper_is_asked_afresh(self) -> None:
        """Both who keep it have heard."""
        source = self.source(self.docker({"credsStore": "two"}))
        d = self.ask(source)
        self.reactor.programs[0].ends(self.answer("a"))
        self.reactor.advance(REFUSED_S)
        source.refused(self.successResultOf(d))
        d = self.ask(source)
        self.reactor.programs[1].ends(self.answer("b"))
        self.assertEqual(self.successResultOf(d).password, "b")

    def test_stopping_kills_docker_s_helper(self) -> None:
        """Though another source runs it."""
        source = self.source(self.docker({"credsStore": "two"}))
        d = self.ask(source)
        source.stop()
        self.failureResultOf(d, LoginUnavailable)
        self.assertEqual(self.reactor.programs[0].signals, ["KILL"])


class OthersTests(SourceTests):
    """What all have in common."""

    def test_no_secret_is_in_a_repr(self) -> None:
        """Neither of accounts nor of what is made of them."""
        environment = (("TOKEN", SECRET),)
        for account in (
            Password("robot", SECRET),
            Helper("x", environment=environment),
            DockerConfig("/f", environment),
        ):
            self.assertNotIn(SECRET, repr(account))
            self.assertNotIn(SECRET, repr(self.source(account)))
        source = self.source(PasswordFile("robot", str(self.path)))
        self.path.write_text(SECRET)
        self.login(source)
        self.assertNotIn(SECRET, repr(source))

    def test_ecr_is_asked_by_the_workers(self) -> None:
        """Nothing is imported here."""
        workers = ManualWorkers()
        source = source_of(Ecr(), URL, self.reactor, workers)
        self.assertNoResult(self.ask(source))
        self.assertEqual(len(workers.jobs), 1)

    def test_the_bound_of_a_reading_holds_for_threads(self) -> None:
        """What one that hung brings in the end is dropped: the failure stands until it is over."""
        workers = ManualWorkers()
        self.path.write_text("late")
        source = source_of(PasswordFile("robot", str(self.path)), URL, self.reactor, workers)
        d = self.ask(source)
        self.reactor.advance(READING_S)
        self.assertTrue(self.failureResultOf(d, LoginUnavailable).value.timed_out)
        workers.work()
        self.refusal(source)
