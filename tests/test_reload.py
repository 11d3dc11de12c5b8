"""A reload takes what is new, or leaves everything as it was and says why."""

from __future__ import annotations

from typing import Any, cast

from attrs import define, evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.config import Config, ConfigError, load
from txociproxy.reload import DoorClosed, Reload, changed_settings
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import UpstreamTable
from txociproxy.upstreams.logins.accounts import Password

OTHER = Entry("other.example", ("https://other.example",))


@define(eq=False)
class Port:
    """A door that knows whether it is open."""

    place: str
    is_open: bool = True

    def stopListening(self) -> None:
        """Close."""
        self.is_open = False


class ReloadTests(SynchronousTestCase):
    """A reload between configurations of the test's own."""

    def setUp(self) -> None:
        """Run with the shipped table and one upstream with a door."""
        base = load({}, {"PROXY_MODE": "transparent", "FS_ROOT": "/srv/x"})
        self.doored = Entry("door.example", ("https://door.example",), listen="127.0.0.1:9001")
        self.config = evolve(base, upstreams=(*base.upstreams, self.doored))
        self.tables: list[UpstreamTable] = []
        self.refusals: dict[str, Exception] = {}
        self.opened: list[Port] = []
        self.next: Deferred[Config] = succeed(self.config)
        self.reads = 0
        self.first = Port("127.0.0.1:9001")
        doors = cast(dict[str, IListeningPort], {"127.0.0.1:9001": self.first})
        self.reload = Reload(self.config, self.reread, self.turn, self.open, doors)

    async def reread(self) -> Config:
        """Give what the test has prepared."""
        self.reads += 1
        return await self.next

    def turn(self, table: UpstreamTable) -> None:
        """Take the table, unless the test forbids it."""
        if "turn" in self.refusals:
            raise self.refusals["turn"]
        self.tables.append(table)

    def open(self, place: str) -> IListeningPort:
        """Open a door, unless the test forbids it."""
        if place in self.refusals:
            raise self.refusals[place]
        self.opened.append(Port(place))
        return cast(IListeningPort, self.opened[-1])

    def run_with(self, config: Config | Exception) -> list[dict[str, Any]]:
        """Reload to this; returns what was said."""
        self.next = fail(config) if isinstance(config, Exception) else succeed(config)
        with capturedLogs() as events:
            self.reload.begin()
        return cast(list[dict[str, Any]], list(events))

    def test_upstreams_default_and_unlisted_are_taken(self) -> None:
        """What was added, removed and changed is said."""
        changed = evolve(self.config.upstreams[0], max_connections=3)
        after = evolve(self.config, upstreams=(changed, self.doored, OTHER), unlisted="deny")
        event = self.run_with(after)[-1]
        self.assertEqual(self.tables, [UpstreamTable(after.upstreams, "docker.io", "deny")])
        self.assertEqual((event["added"], event["changed"]), ("other.example", "docker.io"))
        self.assertIn("ghcr.io", event["removed"])
        self.assertTrue(self.first.is_open)
        self.assertEqual(self.opened, [])

    def test_a_bad_file_leaves_everything_and_says_why(self) -> None:
        """One line with the reason."""
        (event,) = self.run_with(ConfigError("x.yaml:3: upstreams[a].tls.ca: cannot be read"))
        self.assertIn("x.yaml:3", event["reason"])
        self.assertEqual(event["log_level"].name, "error")
        self.assertEqual((self.tables, self.first.is_open), ([], True))

    def test_a_table_that_is_refused_leaves_everything(self) -> None:
        """A door that was opened for it is closed again."""
        self.refusals["turn"] = ValueError("tls: no")
        door = evolve(OTHER, listen="127.0.0.1:9002")
        (event,) = self.run_with(evolve(self.config, upstreams=(*self.config.upstreams, door)))
        self.assertEqual(event["log_level"].name, "error")
        self.assertEqual([port.is_open for port in self.opened], [False])
        self.assertTrue(self.first.is_open)
        self.assertIs(self.reload.config, self.config)

    def test_a_door_that_cannot_be_opened_leaves_everything(self) -> None:
        """The first one that could is closed again."""
        self.refusals["127.0.0.1:9003"] = DoorClosed("in use")
        doors = tuple(evolve(OTHER, namespace=f"o{n}.example", listen=f"127.0.0.1:{n}") for n in (9002, 9003))
        self.run_with(evolve(self.config, upstreams=(*self.config.upstreams, *doors)))
        self.assertEqual([port.is_open for port in self.opened], [False])
        self.assertEqual(self.tables, [])

    def test_doors_of_upstreams_come_and_go(self) -> None:
        """Those that stay are not touched."""
        door = evolve(OTHER, listen="127.0.0.1:9002")
        base = self.config.upstreams[:-1]
        self.run_with(evolve(self.config, upstreams=(*base, door)))
        self.assertFalse(self.first.is_open)
        self.assertEqual([(port.place, port.is_open) for port in self.opened], [("127.0.0.1:9002", True)])
        self.run_with(evolve(self.config, upstreams=base))
        self.assertEqual((self.opened[0].is_open, self.reload.doors), (False, {}))

    def test_what_needs_a_new_start_is_named(self) -> None:
        """It is not taken, and the rest is."""
        after = evolve(self.config, tag_fresh_s=1.0, log_level="debug", upstreams=(*self.config.upstreams, OTHER))
        warning = self.run_with(after)[0]
        self.assertEqual(set(warning["names"].split(",")), {"tag_fresh_s", "log_level"})
        self.assertEqual(len(self.tables), 1)
        self.assertEqual(changed_settings(self.config, self.config), [])

    def test_it_is_named_as_long_as_it_differs_from_what_runs(self) -> None:
        """Not from what was read last."""
        other = evolve(self.config, tag_fresh_s=1.0)
        for config, expected in ((other, ["tag_fresh_s"]), (other, ["tag_fresh_s"]), (self.config, [])):
            events = self.run_with(config)
            self.assertEqual([event["names"] for event in events if "names" in event], expected)

    def test_another_mode_is_not_taken(self) -> None:
        """`unlisted`, which follows it, would be public while the authenticated mode goes on (RULES B6)."""
        running = load({}, {"PROXY_MODE": "authenticated", "FS_ROOT": "/srv/x"})
        read = load({}, {"PROXY_MODE": "transparent", "FS_ROOT": "/srv/x"})
        self.assertEqual((running.unlisted, read.unlisted), ("deny", "public"))
        self.reload.config = running
        (event,) = self.run_with(read)
        self.assertIn("the mode is transparent there, which needs a new start", event["reason"])
        self.assertEqual((self.tables, self.reload.config), ([], running))

    def test_who_sees_whose_credentials_is_said_again_when_it_changes(self) -> None:
        """Also what a login of ours opens to everybody (RULES C6, D3)."""
        owner = evolve(OTHER, account=Password("u", "hunter2"))
        events = self.run_with(evolve(self.config, upstreams=(*self.config.upstreams, owner)))
        said = [(event["log_format"], event["namespaces"]) for event in events if "namespaces" in event]
        self.assertEqual([text[:20] for text, _ in said], ["these upstreams see ", "whoever reaches this"])
        self.assertEqual(said[1][1], "other.example")
        self.assertEqual(len(self.run_with(self.reload.config)), 1)

    def test_signals_that_come_together_are_one_or_two(self) -> None:
        """The last one is never lost."""
        self.next = Deferred()
        for _ in range(5):
            self.reload.begin()
        self.assertEqual(self.reads, 1)
        first, self.next = self.next, succeed(self.config)
        first.callback(self.config)
        self.assertEqual((self.reads, len(self.tables)), (2, 2))

    def test_the_end_gives_up_what_is_running(self) -> None:
        """Nothing is opened after it."""
        self.next = Deferred()
        self.reload.begin()
        self.reload.begin()
        self.reload.stop()
        self.assertEqual((self.reads, self.tables), (1, []))

    def test_what_nobody_expected_is_logged_and_leaves_everything(self) -> None:
        """And the next signal works again."""
        events = self.run_with(ZeroDivisionError("oops"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("reload failed", events[0]["log_format"])
        self.run_with(self.config)
        self.assertEqual(len(self.tables), 1)
