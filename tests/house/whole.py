"""The whole house but its sockets: the real resource tree, core and upstreams, over a network in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import define, field
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from tests.doubles import InlineWorkers
from tests.upstreams.fakes import NAMESPACE, URL, Answer, FakeNet, FakeResponse
from tests.web.doubles import KEY, Registry
from tests.web.doubles import Answer as ClientAnswer
from txociproxy.admissions import Admissions
from txociproxy.asking import Asking
from txociproxy.assembly import CoreRules, assemble
from txociproxy.envelopes import Envelopes
from txociproxy.interfaces import IMode
from txociproxy.metrics import Metrics
from txociproxy.modes import Authenticated, Transparent
from txociproxy.storage.memory import MemoryStorage
from txociproxy.upstreams.connecting.agents import Line
from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.registry import Upstreams
from txociproxy.web.making import make_root
from txociproxy.web.pages import Pages
from txociproxy.web.settings import WebSettings

Handler = Callable[[str, str, Headers], Answer]


@define(eq=False)
class Waiting:
    """Answers that never come, and whether somebody still waits for them."""

    asked: list[Deferred[IResponse]] = field(factory=list)

    def hang(self) -> Deferred[IResponse]:
        """Give no answer."""
        d: Deferred[IResponse] = Deferred()
        self.asked.append(d)
        return d

    @property
    def outstanding(self) -> int:
        """How many are still waited for."""
        return sum(not d.called for d in self.asked)


class WholeHouse(Registry):
    """One proxy, whose upstreams the test answers for.

    :param entries: the table; the first is the default.
    :param unlisted: what becomes of others.
    """

    def __init__(
        self,
        handler: Handler,
        *entries: Entry,
        mode: str = "transparent",
        unlisted: Literal["public", "deny"] = "deny",
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.net = FakeNet(handler)
        entries = entries or (Entry(NAMESPACE, (URL,)),)
        table = LiveTable(UpstreamTable(entries, entries[0].namespace, unlisted))
        self.metrics = Metrics()
        self.metrics.know(entry.namespace for entry in entries)
        self.upstreams = Upstreams(self.clock, table, InlineWorkers(), lambda _: Line(self.net), metrics=self.metrics)
        self.storage = MemoryStorage()
        now, rules = self.clock.seconds, CoreRules()
        core = assemble(
            self.storage, self._mode(mode), self.upstreams, InlineWorkers(), self.clock, now, rules, self.metrics
        )
        self.core = core
        self.envelopes = Envelopes(KEY, self.clock.seconds)
        settings = WebSettings(is_transparent=mode == "transparent")
        pages = Pages(exposition=self.metrics.exposition)
        self.root = make_root(self.clock, core.cache, table, self.envelopes, settings, self.metrics, pages)
        self.agent = RequestTraversalAgent(self.root)

    def _mode(self, mode: str) -> IMode:
        if mode == "transparent":
            return Transparent()
        asking = Asking(self.upstreams, self.clock, True)
        return Authenticated(asking, Admissions(self.clock.seconds, 0.0, b"k" * 32))

    def within(self, seconds_s: float, asked: Deferred[IResponse], method: str = "GET") -> ClientAnswer:
        """Return the whole answer, which comes in this time, step by step of the clock."""
        steps = 100
        come: list[IResponse] = []

        def note(response: IResponse) -> IResponse:
            come.append(response)
            return response

        asked.addCallback(note)
        for _ in range(steps):
            if come:
                break
            self.clock.advance(seconds_s / steps)
            self.agent.flush()
        return self.answer_of(asked, method)

    def let_pass(self, seconds_s: float) -> None:
        """Let time pass in steps."""
        for _ in range(20):
            self.clock.advance(seconds_s / 20)
            self.agent.flush()


def stuck(response: FakeResponse) -> FakeResponse:
    """Return an answer whose body stops before it ends."""
    length = len(response.body)
    found = FakeResponse(response.code, response.body[: length // 2], response.headers, open_ended=True)
    found.length = length
    return found
