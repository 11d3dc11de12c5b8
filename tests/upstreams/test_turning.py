"""Another table while everything goes on: what is the same stays, what is new is made, what is gone ends gently."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.certificates import Authority, Issued
from tests.upstreams.fakes import FakeLogins, pull_of
from tests.upstreams.sockets import Sockets, WebServer, reply, settled
from txociproxy.collect import collect
from txociproxy.interfaces import ANONYMOUS
from txociproxy.upstreams.entries.entry import Entry, Tls
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.logins.accounts import Account, PasswordFile
from txociproxy.upstreams.registry import Upstreams
from txociproxy.upstreams.upstream import Upstream

ONE = Entry("one.example", ("http://one.example",))
TWO = Entry("two.example", ("http://two.example",))


class TurnTests(SynchronousTestCase):
    """Two registries over a network in memory."""

    def setUp(self) -> None:
        """Both answer at once, but to ``/slow``."""
        self.reactor = Sockets({"one.example": [["1.1.1.1"]], "two.example": [["2.2.2.2"]]})
        self.server = WebServer(lambda seen: reply(200, b"ok"))
        for address in ("1.1.1.1", "2.2.2.2"):
            self.reactor.servers[address, 80] = self.server.plain()
        self.live = LiveTable(self.table(ONE, TWO))
        self.upstreams = Upstreams(self.reactor, self.live, InlineWorkers())

    def table(self, *entries: Entry, unlisted: Literal["public", "deny"] = "deny") -> UpstreamTable:
        """Return a table of these."""
        return UpstreamTable(entries, entries[0].namespace, unlisted)

    def upstream(self, namespace: str) -> Upstream:
        """Return one that is there."""
        found = self.upstreams.upstream(namespace)
        assert found is not None
        return found

    def get(self, namespace: str) -> IResponse:
        """Pull a blob, to its headers."""
        got = settled(self.reactor, self.upstream(namespace).get(pull_of(), ANONYMOUS, None, None))
        response: IResponse = self.successResultOf(got)
        return response

    def pull(self, namespace: str) -> None:
        """Pull a blob, to its end."""
        done = collect(self.get(namespace), 99, self.reactor, 5)
        self.reactor.rest()
        self.successResultOf(done)

    def addresses(self) -> list[str]:
        """Return what has been connected to."""
        return [host for host, _ in self.reactor.attempts]

    def test_what_is_the_same_stays(self) -> None:
        """With its upstream and its idle connections; the live table is the new one."""
        self.pull("one.example")
        one, two = self.upstream("one.example"), self.upstream("two.example")
        turned = self.table(evolve(ONE), evolve(TWO, deadline_s=3.0))
        self.upstreams.turn_to(turned)
        self.assertIs(self.live.current, turned)
        self.assertIs(self.upstream("one.example"), one)
        self.assertIsNot(self.upstream("two.example"), two)
        self.pull("one.example")
        self.assertEqual(self.addresses(), ["1.1.1.1"])

    def test_what_has_changed_is_made_anew_and_old_idle_connections_close(self) -> None:
        """Its own only."""
        self.pull("one.example")
        self.pull("two.example")
        self.upstreams.turn_to(self.table(ONE, evolve(TWO, user_agent="other/1")))
        self.reactor.rest()
        self.assertEqual(len(self.reactor.pipes), 1)
        self.pull("two.example")
        self.assertEqual(self.addresses(), ["1.1.1.1", "2.2.2.2", "2.2.2.2"])
        self.assertEqual(self.server.seen[-1].fields["user-agent"], "other/1")

    def test_what_is_gone_is_gone_and_what_is_new_is_there(self) -> None:
        """For whoever asks by name."""
        three = Entry("three.example", ("http://one.example",))
        self.upstreams.turn_to(self.table(ONE, three))
        self.assertIsNone(self.upstreams.upstream("two.example"))
        self.assertIsNone(self.upstreams.entry("two.example"))
        self.assertEqual(self.upstreams.entry("three.example"), three)
        self.pull("three.example")

    def test_a_body_that_runs_goes_on_and_its_connection_is_not_kept(self) -> None:
        """Also one whose upstream is gone; it may even ask again, to be resumed."""
        self.server.handler = lambda seen: reply(200, b"", content_length="4") + b"ab"
        old = self.upstream("two.example")
        running = self.get("two.example")
        self.upstreams.turn_to(self.table(ONE))
        self.reactor.rest()
        body = collect(running, 99, self.reactor, 5)
        (pipe,) = self.reactor.pipes
        pipe.other.write(b"cd")
        self.reactor.rest()
        self.assertEqual(self.successResultOf(body), b"abcd")
        self.assertEqual(self.reactor.pipes, set())
        self.server.handler = lambda seen: reply(206, b"cd")
        again = settled(self.reactor, old.get(pull_of(), ANONYMOUS, "bytes=2-", None))
        self.assertEqual(self.successResultOf(again).code, 206)

    def test_stopping_ends_what_runs_on_old_connections_too(self) -> None:
        """Or the process would wait for it."""
        self.server.handler = lambda seen: reply(200, b"", content_length="4") + b"ab"
        self.get("two.example")
        self.upstreams.turn_to(self.table(ONE))
        stopped = self.upstreams.stop()
        self.reactor.rest()
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.pipes, set())

    def test_tables_can_be_turned_again_and_again(self) -> None:
        """Nothing is left behind."""
        for number in range(20):
            self.upstreams.turn_to(self.table(ONE, evolve(TWO, deadline_s=1.0 + number)))
            self.pull("two.example")
        self.reactor.rest()
        self.assertEqual(len(self.reactor.pipes), 1)
        stopped: Deferred[None] = self.upstreams.stop()
        self.reactor.rest()
        self.successResultOf(stopped)

    def test_unlisted_ones_go_when_they_are_not_asked_any_more(self) -> None:
        """Denied, or configured now; the others stay."""
        self.upstreams.turn_to(self.table(ONE, unlisted="public"))
        two, three = self.upstream("two.example"), self.upstream("three.example")
        self.upstreams.turn_to(self.table(ONE, TWO, unlisted="public"))
        self.assertIsNot(self.upstream("two.example"), two)
        self.assertEqual(self.upstreams.entry("two.example"), TWO)
        self.assertIs(self.upstream("three.example"), three)
        self.upstreams.turn_to(self.table(ONE, TWO))
        self.assertIsNone(self.upstreams.upstream("three.example"))
        self.upstreams.turn_to(self.table(ONE, TWO, unlisted="public"))
        self.assertIsNot(self.upstream("three.example"), three)

    def test_a_table_whose_files_cannot_be_used_changes_nothing(self) -> None:
        """And says which file; nothing of the other entries has been taken over either."""
        before, one = self.live.current, self.upstream("one.example")
        bad = evolve(TWO, tls=Tls(ca="/nowhere/ca.pem"))
        error = self.assertRaises(ValueError, self.upstreams.turn_to, self.table(evolve(ONE, deadline_s=1.0), bad))
        self.assertEqual(str(error), "upstreams[two.example].tls.ca: /nowhere/ca.pem: No such file or directory")
        self.assertIs(self.live.current, before)
        self.assertIs(self.upstream("one.example"), one)

    def test_a_login_that_is_not_needed_any_more_ends(self) -> None:
        """A changed account is another login; that of an entry which stays goes on."""
        first, second = PasswordFile("me", "/nowhere/a"), PasswordFile("me", "/nowhere/b")
        stopped: list[Account] = []

        class Source(FakeLogins):
            """Tells when it is stopped."""

            def __init__(self, account: Account, url: str, reactor: object, workers: object) -> None:
                super().__init__()
                self.account = account

            def stop(self) -> None:
                """Tell."""
                stopped.append(self.account)

        live = LiveTable(self.table(evolve(ONE, account=first), TWO))
        self.upstreams = Upstreams(self.reactor, live, InlineWorkers(), logins=Source)
        with_login = self.upstream("one.example")
        self.upstreams.turn_to(self.table(evolve(ONE, account=first), TWO))
        self.assertIs(self.upstream("one.example"), with_login)
        self.assertEqual((with_login.has_own_credentials, stopped), (True, []))
        self.upstreams.turn_to(self.table(evolve(ONE, account=second), TWO))
        self.assertEqual(stopped, [first])
        self.upstreams.stop()
        self.assertEqual(stopped, [first, second])


class RenewalTests(SynchronousTestCase):
    """Certificates are files, and are renewed."""

    def test_a_renewed_certificate_is_taken_by_a_reload(self) -> None:
        """Though nothing in the table has changed."""
        folder = Path(self.mktemp())
        folder.mkdir()
        authority = Authority()
        ca, _ = authority.own.write(folder, "ca")
        cert, key = authority.issue("first").write(folder, "us")
        reactor = Sockets({"reg.example": [["1.1.1.1"]]})
        server, its = WebServer(lambda seen: reply(200, b"ok")), authority.issue("reg.example")
        reactor.servers["1.1.1.1", 443] = server.over_tls(authority.asking(its, is_required=True), reactor)
        entry = Entry("reg.example", ("https://reg.example",), tls=Tls(ca, cert, key))
        table = UpstreamTable((entry,), "reg.example")
        upstreams = Upstreams(reactor, LiveTable(table), InlineWorkers())

        def pull() -> None:
            upstream = upstreams.upstream("reg.example")
            assert upstream is not None
            got = settled(reactor, upstream.get(pull_of(), ANONYMOUS, None, None))
            collect(self.successResultOf(got), 99, reactor, 5)
            reactor.rest()

        def renew(issued: Issued) -> None:
            issued.write(folder, "us")
            pull()
            upstreams.turn_to(evolve(table))
            pull()

        pull()
        renew(authority.issue("second"))
        upstreams.turn_to(evolve(table))
        pull()
        self.assertEqual([seen.client for seen in server.seen], ["CN=first", "CN=first", "CN=second", "CN=second"])
        self.assertEqual(len(reactor.attempts), 2)
