"""What a smoke test does, event by event, and the line about each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar

from attrs import define, field, frozen

from txociproxy.cli.fetching import Refused
from txociproxy.cli.places import Place
from txociproxy.cli.pulling import IGet, Image, Puller, Wrong
from txociproxy.cli.waiting import WireError
from txociproxy.logs import logfmt

KEYS: Final = ("ts", "host", "result", "event", "target", "endpoint", "code", "image", "ms1", "ms2", "speedup_pct")
MAX_PING_BYTES: Final = 1024 * 1024
T = TypeVar("T")
Fetch = Callable[[], tuple[IGet, Callable[[], None]]]


@frozen
class Subject:
    """What is tried.

    :ivar target: its name in the lines.
    :ivar endpoint: its host and port, in the lines too.
    """

    place: Place
    target: str
    platform: str

    @property
    def endpoint(self) -> str:
        """Host and port as they stand in the URL."""
        return self.place.text.partition("://")[2]


@define(eq=False)
class Smoke:
    """Tries a cache and writes down what happens.

    :ivar _fetch: makes what fetches, with a time of its own, and what closes it.
    :ivar _write: takes a line of facts.
    :ivar _explain: takes a sentence about a failure.
    :ivar _wall_s: the time of day.
    :ivar _even_s: a clock that is never set.
    :ivar failed: whether any event did.
    """

    _subject: Subject
    _fetch: Fetch
    _write: Callable[[str], object]
    _explain: Callable[[str], object]
    _host: str
    _wall_s: Callable[[], float] = time.time
    _even_s: Callable[[], float] = time.monotonic
    failed: bool = field(default=False, init=False)

    def run(self, images: Mapping[str, Image], look_up: Callable[[], object]) -> bool:
        """Try everything, and say whether it went well.

        :param images: by what the person wrote.
        :param look_up: finds the cache's addresses.
        """
        endpoint = {"endpoint": self._subject.endpoint}
        self._event("dns", look_up, endpoint)
        if not self.failed:
            self._event("v2_probe", self._probe, endpoint)
        if not self.failed:
            for name, image in images.items():
                self._try(name, image)
        return not self.failed

    def _try(self, name: str, image: Image) -> None:
        """Manifest, two pulls, and the difference between them."""
        about = {"image": name}
        if not self._event("manifest", lambda: self._manifest(image), about)[0]:
            return
        good, cold_ms = self._event("pull", lambda: self._pull(image), about, "ms1")
        if not good:
            return
        good, warm_ms = self._event("pull", lambda: self._pull(image), about, "ms2")
        if good:
            pct = 100 * (cold_ms - warm_ms) // cold_ms if cold_ms else 0
            self._line("cache_eff", True, {**about, "ms1": cold_ms, "ms2": warm_ms, "speedup_pct": pct})

    def _event(
        self, event: str, action: Callable[[], object], about: Mapping[str, object], clock: str | None = None
    ) -> tuple[bool, int]:
        """Do something and write the line about it; return whether it went well, and its milliseconds.

        :param action: returns a status if it is one of HTTP.
        :param clock: the key for the milliseconds, if they belong into the line.
        """
        began_s = self._even_s()
        good, code = True, None
        try:
            code = action()
        except Refused as error:
            good, code = False, error.status
            self._explain(f"{event}: {error}")
        except (WireError, Wrong, OSError) as error:
            good = False
            self._explain(f"{event}: {error}")
        took_ms = int((self._even_s() - began_s) * 1000)
        times = {clock: took_ms} if clock and good else {}
        self._line(event, good, {**about, **({"code": code} if isinstance(code, int) else {}), **times})
        return good, took_ms

    def _line(self, event: str, good: bool, more: Mapping[str, object]) -> None:
        """Write a line; a key without a value is not there."""
        self.failed = self.failed or not good
        values = {
            "ts": datetime.fromtimestamp(self._wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "host": self._host,
            "result": "pass" if good else "fail",
            "event": event,
            "target": self._subject.target,
            **more,
        }
        self._write(logfmt({key: values[key] for key in KEYS if key in values}))

    def _probe(self) -> int:
        """Ask whether it is a registry; one that wants a token first is one (distribution-spec, end-1)."""
        fetcher, close = self._fetch()
        try:
            reply = fetcher.get("/v2/", logs_in=False)
            reply.whole(MAX_PING_BYTES)
        finally:
            close()
        if reply.status not in (200, 401):
            raise Refused(reply.status, "/v2/")
        return reply.status

    def _manifest(self, image: Image) -> int:
        self._with_puller(image, Puller.manifest)
        return 200

    def _pull(self, image: Image) -> None:
        """Pull with connections and a token of its own, as another machine would."""
        self._with_puller(image, Puller.pull)

    def _with_puller(self, image: Image, action: Callable[[Puller], T]) -> T:
        fetcher, close = self._fetch()
        try:
            return action(Puller(fetcher, image, self._subject.platform))
        finally:
            close()
