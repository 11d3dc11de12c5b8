"""What belongs to the whole process."""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

from attrs import define, field
from twisted.internet.selectreactor import SelectReactor
from twisted.logger import ILogObserver, LogEvent, capturedLogs, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txociproxy.config import Config, load
from txociproxy.process import (
    WANTED_FILES,
    files_needed,
    keep_even_time,
    leave_at_last,
    leave_at_signals,
    raise_file_limit,
    starter_of,
    take_reloads,
    take_signals,
    telling,
)

BEGAN_S = 1_800_000_000.0


class EvenTimeTests(SynchronousTestCase):
    """A wall clock that is put moves no timer."""

    def setUp(self) -> None:
        """A reactor that never runs."""
        self.reactor = SelectReactor()
        self.addCleanup(self.reactor.removeAll)
        self.wall_s, self.even_s = BEGAN_S, 500.0

    def keep(self) -> None:
        """Let it keep the time of the test's clocks."""
        keep_even_time(self.reactor, lambda: self.wall_s, lambda: self.even_s)

    def test_a_timer_goes_by_the_clock_that_nobody_puts(self) -> None:
        """The wall clock is put back by three hours, and one second goes by."""
        self.keep()
        call = self.reactor.callLater(1, lambda: None)
        self.wall_s -= 3 * 3600
        self.assertEqual(self.reactor.timeout(), 1)
        self.even_s += 1
        self.assertEqual(self.reactor.timeout(), 0)
        self.assertEqual((self.reactor.seconds(), call.getTime()), (BEGAN_S + 1, BEGAN_S + 1))
        call.cancel()

    def test_timers_that_wait_already_keep_their_clock(self) -> None:
        """They would come at once, or never."""
        call = self.reactor.callLater(1000, lambda: None)
        self.keep()
        self.assertNotEqual(self.reactor.seconds(), BEGAN_S)
        call.cancel()


@define(eq=False)
class Stopped:
    """A reactor that only notes that it shall stop."""

    calls: list[Callable[..., Any]] = field(factory=list)

    def callFromThread(self, function: Callable[..., Any]) -> None:
        """Note what is to be called."""
        self.calls.append(function)

    def stop(self) -> None:
        """End."""


class SignalTests(SynchronousTestCase):
    """Signals that this very process sends itself."""

    def setUp(self) -> None:
        """Everything is as before when the test is over."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.addCleanup(signal.setitimer, signal.ITIMER_REAL, 0)
        self.left: list[int] = []
        self.gone = threading.Event()

    def leave(self, status: int) -> None:
        """Note with which status the process would be gone."""
        self.left.append(status)
        self.gone.set()

    def test_the_first_ends_it_well_and_the_second_at_once(self) -> None:
        """Either may come first; the reactor is told in its own turn."""
        for first, second in ((signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)):
            reactor = Stopped()
            self.left.clear()
            take_signals(reactor, 60, self.leave)
            os.kill(os.getpid(), first)
            self.assertEqual((reactor.calls, self.left), ([reactor.stop], []))
            self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 50)
            os.kill(os.getpid(), second)
            self.assertEqual((reactor.calls, self.left), ([reactor.stop], [128 + second]))

    def test_before_anybody_is_served_the_first_ends_it_at_once(self) -> None:
        """With the status that a shell would give."""
        leave_at_signals(self.leave)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        self.assertEqual(self.left, [143, 130])

    def test_a_drain_without_an_end_in_sight_is_begun_all_the_same(self) -> None:
        """No alarm clock goes so far; the signal must not be lost over that."""
        reactor = Stopped()
        take_signals(reactor, 999_999_999_999_999, self.leave)
        os.kill(os.getpid(), signal.SIGTERM)
        self.assertEqual((reactor.calls, self.left), ([reactor.stop], []))
        self.assertGreater(signal.getitimer(signal.ITIMER_REAL)[0], 365 * 86400)

    def test_a_reload_and_the_rotation_of_logs_end_nothing(self) -> None:
        """SIGHUP reads the configuration again, SIGUSR1 does nothing; helper programs do not inherit that."""
        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        reactor, reloads = Stopped(), Stopped()
        take_reloads(reactor, reloads.stop)
        os.kill(os.getpid(), signal.SIGUSR1)
        self.assertEqual(reactor.calls, [])
        self.assertNotEqual(signal.getsignal(signal.SIGUSR1), signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGHUP)
        self.assertEqual(reactor.calls, [reloads.stop])

    def test_an_end_that_takes_too_long_is_cut_off_with_status_0(self) -> None:
        """It is said, and done also while the main thread waits for others."""
        with capturedLogs() as events:
            leave_at_last(0.02, self.leave)
            self.gone.wait(5)
        self.assertEqual(self.left, [0])
        self.assertEqual([event["log_level"].name for event in events], ["error"])

    def test_a_log_that_hangs_does_not_hold_it_up(self) -> None:
        """The next alarm, a second later, says nothing."""
        first: list[bool] = []

        @implementer(ILogObserver)
        def hang(_: LogEvent) -> None:
            first.append(self.gone.wait(5))

        observer = cast(ILogObserver, hang)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        leave_at_last(0.02, self.leave)
        self.gone.wait(5)
        self.assertEqual((first, self.left), ([True], [0, 0]))

    def test_the_time_that_is_left_can_be_set_again(self) -> None:
        """When all has ended well, little is left."""
        leave_at_last(60, self.leave)
        leave_at_last(5, self.leave)
        self.assertLessEqual(signal.getitimer(signal.ITIMER_REAL)[0], 5)


class FilesTests(SynchronousTestCase):
    """How many descriptors there are, and how many are needed."""

    def config(self, **environ: str) -> Config:
        """Return a configuration."""
        return load({}, {"PROXY_MODE": "transparent", "FS_ROOT": "/srv/x", **environ})

    def test_each_cap_that_opens_files_counts(self) -> None:
        """One more of a kind needs as many more as it opens; a bucket's only with a bucket."""
        bucket = {"STORAGE_BACKEND": "s3", "S3_BUCKET": "images"}
        for name, default, each, more in (
            ("MAX_CONNECTIONS", 4096, 2, {}),
            ("MAX_INGESTS", 256, 3, {}),
            ("MAX_RANGE_RELAYS", 32, 1, {}),
            ("MAX_CARRIED", 512, 0, {}),
            ("MAX_CARRIED", 512, 2, bucket),
        ):
            before = files_needed(self.config(**more))
            after = files_needed(self.config(**more, **{f"OCIPROXY_{name}": str(default + 1)}))
            self.assertEqual(after - before, each, name)

    def test_each_upstream_counts(self) -> None:
        """And so do all together that are not listed."""
        shipped = files_needed(self.config(OCIPROXY_UNLISTED="deny"))
        self.assertEqual(shipped, 2 * 4096 + 3 * 256 + 32 + 8 * 64 + 128)
        self.assertEqual(files_needed(self.config(OCIPROXY_UNLISTED="public")), shipped + 16)
        only = {"OCIPROXY_UNLISTED": "deny", "OCIPROXY_SHIPPED_UPSTREAMS": "no", "UPSTREAM_REGISTRY": "https://r.lan"}
        self.assertEqual(files_needed(self.config(**only)), shipped - 7 * 64)

    def test_the_limit_is_raised_to_what_is_wanted_and_allowed(self) -> None:
        """A soft limit is anybody's to raise; one that is higher already stays."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        hard = before[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        self.assertEqual(raise_file_limit(100), min(hard, WANTED_FILES))
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (min(hard, WANTED_FILES), hard))
        self.assertEqual(raise_file_limit(WANTED_FILES + 1), min(hard, WANTED_FILES + 1))
        self.assertEqual(raise_file_limit(100), min(hard, WANTED_FILES + 1))

    def test_a_system_that_allows_less_than_it_says_gives_what_is_needed(self) -> None:
        """Or nothing, if that is too much too; it is no reason to end."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        hard = before[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))

        def put(most: int, kind: int, limits: tuple[int, int]) -> None:
            if limits[0] > most:
                raise ValueError("current limit exceeds maximum limit")
            resource.setrlimit(kind, limits)

        for most, allowed in ((600, 512), (1000, 1000)):
            self.assertEqual(raise_file_limit(1000, partial(put, most)), allowed)
            self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (allowed, hard))


class StarterTests(SynchronousTestCase):
    """Who waits for a daemon that does not begin."""

    def test_a_sentence_and_no_more_is_told(self) -> None:
        """As much as is read there; the file with our number goes before that."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        for descriptor in (read, write):
            self.addCleanup(os.close, descriptor)
        file = Path(self.mktemp())
        file.write_text("1")

        def begin() -> None:
            with telling(starter_of({"statusPipe": write, "pidfile": str(file)})):
                raise SystemExit("--listen: " + "\N{SNOWMAN}" * 200)

        self.assertRaises(SystemExit, begin)
        told = os.read(read, 1000)
        self.assertEqual((told[:13], len(told)), (b"1 --listen: ?", 100))
        self.assertFalse(file.exists())

    def test_nobody_waits_for_what_is_no_daemon(self) -> None:
        """Nor for what is not run by ``twistd`` at all; its file is not ours to remove."""
        file = Path(self.mktemp())
        file.write_text("1")
        starter_of({"pidfile": str(file)})("why")
        starter_of(None)("why")
        self.assertTrue(file.exists())
