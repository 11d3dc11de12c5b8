"""Certificates that change while doors are open."""

from __future__ import annotations

import hashlib
import os
import shutil
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from tests.upstreams.certificates import Authority, Issued
from tests.web.tls_client import Echoes, Talk, trusting
from txociproxy.web.tls.certificates import EXPIRED, EXPIRES_SOON, POLL_S, DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made

DAY_S = 86400.0
SOON_TEXT = EXPIRES_SOON
_DER = Encoding.DER
_EPOCH = datetime.now(UTC)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class WatchTestCase(SynchronousTestCase):
    """A door that looks at its files now and then."""

    def setUp(self) -> None:
        """Write a first pair and open."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.first, self.second = self.authority.issue("cache.test"), self.authority.issue("cache.test", "new.test")
        self.cert, self.key = self.first.write(self.folder, "door")
        self.now_s = time.time()
        self.clock = Clock()
        self.workers: Any = InlineWorkers()

    def started(self, paths: TlsPaths | None = None) -> DoorTls:
        """Return one that looks."""
        paths = paths or TlsPaths(self.cert, self.key)
        tls = DoorTls(paths, None, self.workers, self.clock, lambda: self.now_s, 20)
        self.addCleanup(tls.stop)
        tls.start()
        return tls

    def served(self, tls: DoorTls) -> bytes:
        """Return the certificate that a new client sees."""
        talk = self.talk(tls)
        talk.shake_hands()
        return talk.certificate()

    def talk(self, tls: DoorTls, identity: tuple[str, str] | None = None) -> Talk:
        """Connect."""
        context = trusting(self.authority.own.cert_pem, identity)
        return Talk.begin(tls.wrapped(Echoes()), lambda: self.clock.advance(0), context)

    def assert_serves(self, tls: DoorTls, issued: Issued) -> None:
        """A new client sees this one."""
        self.assertEqual(self.served(tls), issued.certificate.public_bytes(_DER))

    def news(self, events: Sequence[Any]) -> list[Any]:
        """Return the events without the warning that these certificates live for a day only."""
        return [event for event in events if event["log_format"] != SOON_TEXT]

    def warnings_of(self, events: Sequence[Any]) -> list[str]:
        """Return what was warned of."""
        return [str(event["log_format"]) for event in events if event["log_level"] >= LogLevel.warn]


class ReloadTests(WatchTestCase):
    """Which certificate a connection gets."""

    def test_another_pair_is_served_to_new_connections(self) -> None:
        """A running one goes on with what it began with."""
        tls = self.started()
        running = self.talk(tls)
        running.shake_hands()
        self.second.write(self.folder, "door")
        self.assert_serves(tls, self.first)
        with capturedLogs() as events:
            self.clock.advance(POLL_S)
        self.assert_serves(tls, self.second)
        self.assertEqual(running.ask(b"still here"), b"still here")
        (event,) = self.news(events)
        self.assertEqual(event["log_format"], "another certificate is taken")
        self.assertEqual(event["names"], "cache.test,new.test")
        self.assertEqual(event["expires"], self.second.certificate.not_valid_after_utc.isoformat())

    def test_a_signal_does_not_wait_for_the_next_look(self) -> None:
        """SIGHUP."""
        tls = self.started()
        self.second.write(self.folder, "door")
        tls.reload()
        self.assert_serves(tls, self.second)

    def test_what_stays_the_same_is_not_news(self) -> None:
        """Neither when it is looked at, nor when somebody touched it; a signal only says again what there is."""
        tls = self.started()
        with capturedLogs() as events:
            os.utime(self.cert)
            self.clock.pump([POLL_S] * 3)
        self.assertEqual(events, [])
        with capturedLogs() as events:
            tls.reload()
        self.assertEqual([event["log_format"] for event in self.news(events)], ["certificate of the doors"])
        self.assert_serves(tls, self.first)

    def test_a_swapped_directory_is_seen(self) -> None:
        """As Kubernetes renews a secret: a link to a directory changes, the path stays, and dates may lie."""
        for name, issued in (("a", self.first), ("b", self.second)):
            (self.folder / name).mkdir()
            issued.write(self.folder / name, "tls")
            for file in (self.folder / name).iterdir():
                os.utime(file, (0, 0))
        data = self.folder / "..data"
        data.symlink_to("a")
        tls = self.started(TlsPaths(str(data / "tls.crt"), str(data / "tls.key")))
        (self.folder / "..tmp").symlink_to("b")
        os.replace(self.folder / "..tmp", data)
        self.clock.advance(POLL_S)
        self.assert_serves(tls, self.second)

    def test_another_authority_of_clients_counts_for_new_connections(self) -> None:
        """Who was let in stays, who comes needs the new one."""
        ca = self.authority.own.write(self.folder, "ca")[0]
        client = self.authority.issue("client").write(self.folder, "client")
        tls = self.started(TlsPaths(self.cert, self.key, ca))
        running = self.talk(tls, client)
        running.shake_hands()
        Path(ca).write_bytes(Authority("Another").own.cert_pem)
        self.clock.advance(POLL_S)
        refused = self.talk(tls, client)
        refused.shake_hands()
        self.assertIn("alert", str(self.assertRaises(ssl.SSLError, refused.ask, b"hello")).lower())
        self.assertEqual(running.ask(b"hello"), b"hello")

    def test_the_reactor_reads_no_files(self) -> None:
        """Threads do, once at a time; a signal meanwhile is not forgotten."""
        self.workers = ManualWorkers()
        tls = self.started()
        self.second.write(self.folder, "door")
        self.clock.pump([POLL_S] * 3)
        self.assertEqual(len(self.workers.jobs), 1)
        self.assert_serves(tls, self.first)
        tls.reload()
        self.assertEqual(len(self.workers.jobs), 1)
        self.assertEqual(self.workers.work(), 2)
        self.assert_serves(tls, self.second)
        self.clock.advance(POLL_S)
        self.assertEqual(len(self.workers.jobs), 1)

    def test_after_the_end_nobody_looks(self) -> None:
        """Also if a thread is at it then."""
        self.workers = ManualWorkers()
        tls = self.started()
        tls.stop()
        self.second.write(self.folder, "door")
        self.workers.work()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assert_serves(tls, self.first)
        tls.stop()


class TroubleTests(WatchTestCase):
    """What is of no use is not taken."""

    def test_a_broken_pair_leaves_the_old_one_and_is_said_once(self) -> None:
        """A new certificate without its key, half a file, none at all: one warning each, until it is mended."""
        tls = self.started()
        for break_it, setting in (
            (lambda: Path(self.cert).write_bytes(self.second.cert_pem), "tls_key"),
            (lambda: Path(self.cert).write_bytes(self.second.cert_pem[:100]), "tls_cert"),
            (lambda: Path(self.cert).unlink(), "tls_cert"),
        ):
            with capturedLogs() as events:
                break_it()
                self.clock.pump([POLL_S] * 4)
            (event,) = events
            self.assertEqual((event["log_level"], event["setting"]), (LogLevel.warn, setting))
            self.assertIn("the old one stays", event["log_format"])
            self.assertNotIn("BEGIN", event["reason"])
            self.assert_serves(tls, self.first)
        with capturedLogs() as events:
            self.second.write(self.folder, "door")
            self.clock.pump([POLL_S] * 2)
        self.assertEqual([event["log_format"] for event in self.news(events)], ["another certificate is taken"])
        self.assert_serves(tls, self.second)

    def test_what_was_broken_may_become_what_it_was(self) -> None:
        """Then it is taken, and a later break is said again."""
        tls = self.started()
        for _ in range(2):
            with capturedLogs() as events:
                Path(self.key).write_bytes(b"")
                self.clock.advance(POLL_S)
                self.first.write(self.folder, "door")
                self.clock.advance(POLL_S)
            self.assertEqual(len(self.warnings_of(self.news(events))), 1)
        self.assert_serves(tls, self.first)

    def test_a_signal_says_it_again(self) -> None:
        """Somebody is looking at the log then."""
        tls = self.started()
        Path(self.key).write_bytes(b"")
        self.clock.advance(POLL_S)
        with capturedLogs() as events:
            tls.reload()
        self.assertEqual(len(self.warnings_of(events)), 1)

    def test_an_error_of_ours_does_not_end_the_looking(self) -> None:
        """It is logged."""

        class Broken(InlineWorkers):
            """Threads that fail."""

            def run(self, function: Any, *args: Any) -> Any:
                """Fail."""
                return super().run(lambda: 1 / 0)

        self.workers = Broken()
        self.started()
        self.clock.advance(POLL_S)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


class ExpiryTests(WatchTestCase):
    """When it ends."""

    def expiring(self, left: timedelta) -> DoorTls:
        """Return a door whose certificate has so long to live."""
        made = self_made([], _EPOCH)
        ends = made.expires
        self.now_s = (ends - left).timestamp()
        tls = DoorTls(TlsPaths(), made, InlineWorkers(), self.clock, lambda: self.now_s, 20)
        self.addCleanup(tls.stop)
        return tls

    def warned(self, seconds: float = 0.0) -> list[str]:
        """Let time pass, and return what was warned of."""
        with capturedLogs() as events:
            self.now_s += seconds
            self.clock.advance(POLL_S)
        return self.warnings_of(events)

    def test_the_start_says_names_end_and_fingerprint(self) -> None:
        """They can be compared with what a client sees."""
        with capturedLogs() as events:
            tls = self.started()
        event = events[0]
        self.assertEqual(event["names"], "cache.test")
        self.assertEqual(event["expires"], self.first.certificate.not_valid_after_utc.isoformat())
        self.assertEqual(bytes.fromhex(event["sha256"].replace(":", "")), _sha256(self.served(tls)))

    def test_one_that_was_made_here_is_said_to_be_for_development(self) -> None:
        """And is looked for in no file."""
        self.workers = ManualWorkers()
        made = DoorTls(TlsPaths(), self_made([], _EPOCH), self.workers, self.clock, _EPOCH.timestamp, 20)
        self.addCleanup(made.stop)
        with capturedLogs() as events:
            made.start()
            made.reload()
            self.clock.advance(POLL_S)
        (warning,) = self.warnings_of(events)
        self.assertIn("development only", warning)
        self.assertEqual(self.workers.jobs, [])

    def test_a_warning_a_day_from_two_weeks_before_the_end(self) -> None:
        """Then that it is over."""
        tls = self.expiring(timedelta(days=14, seconds=60))
        with capturedLogs() as events:
            tls.start()
        self.assertEqual(len(self.warnings_of(events)), 1, "what it was made for")
        self.assertEqual(self.warned(), [])
        self.assertEqual(self.warned(61), [SOON_TEXT])
        self.assertEqual(self.warned(DAY_S - 1), [])
        self.assertEqual(self.warned(1), [SOON_TEXT])
        self.assertEqual(self.warned(13 * DAY_S - 2), [SOON_TEXT])
        self.assertEqual(self.warned(2), [EXPIRED], "at once, though something was said a second ago")
        self.assertEqual(self.warned(DAY_S - 1), [])
        self.assertEqual(self.warned(1), [EXPIRED])

    def test_an_expired_one_is_served_and_said_to_be_at_the_start(self) -> None:
        """A proxy that starts again at night must come up; it is an error in the log."""
        self.now_s += 2 * DAY_S
        with capturedLogs() as events:
            tls = self.started()
        (event,) = [event for event in events if event["log_format"] == EXPIRED]
        self.assertEqual((event["log_level"], event["names"]), (LogLevel.error, "cache.test"))
        self.assertEqual(event["expires"], self.first.certificate.not_valid_after_utc.isoformat())
        self.assert_serves(tls, self.first)

    def test_an_expired_one_is_taken_when_it_comes_and_at_a_signal(self) -> None:
        """Whoever put it there is told."""
        tls = self.started()
        self.now_s += 2 * DAY_S
        self.second.write(self.folder, "door")
        for look in (lambda: self.clock.advance(POLL_S), tls.reload):
            with capturedLogs() as events:
                look()
            self.assertEqual(self.warnings_of(events)[-1], EXPIRED)
            self.assert_serves(tls, self.second)

    def test_a_new_one_that_ends_soon_is_said_at_once(self) -> None:
        """Not only on the next day."""
        tls = self.started()  # one day to live: said at the start
        self.second.write(self.folder, "door")
        with capturedLogs() as events:
            tls.reload()
        self.assertEqual(self.warnings_of(events), [SOON_TEXT])

    def test_a_made_one_can_ask_for_certificates_of_clients(self) -> None:
        """The file of authorities is watched then, and the certificate stays."""
        ca = self.authority.own.write(self.folder, "ca")[0]
        made = self_made(["cache.test"], _EPOCH)
        tls = DoorTls(TlsPaths(client_ca=ca), made, InlineWorkers(), self.clock, lambda: self.now_s, 20)
        self.addCleanup(tls.stop)
        tls.start()
        with capturedLogs() as events:
            Path(ca).write_bytes(Authority("Another").own.cert_pem)
            self.clock.advance(POLL_S)
        self.assertEqual(events[0]["sha256"], made.fingerprint())
        with capturedLogs() as events:
            shutil.rmtree(self.folder)
            self.clock.advance(POLL_S)
        self.assertEqual(events[0]["setting"], "tls_client_ca")
