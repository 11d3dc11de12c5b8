"""The world of the law test: a proxy whose storage can be hurt, its upstream, and what is seen from outside."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

from tests.e2e.law_clients import Asked, Subject
from tests.e2e.law_faults import SILENCE_S
from tests.e2e.law_judge import broken_laws, twice_at_once
from tests.e2e.law_rounds import STORAGE_FAULTS, Round
from tests.e2e.law_upstream import noted, start_law_upstream
from tests.e2e.law_wire import Answer, get
from tests.e2e.processes import Workshop, wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.scripts import MIB, Content, Served, Upstream

STORE_BYTES = 96 * MIB
GUEST_S = 60
HEAL_S = 20
_NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@define(eq=False)
class World:
    """A proxy before one upstream that speaks for two namespaces."""

    upstream: Upstream
    proxy: Proxy
    storage_faults: tuple[str, ...]
    laws: list[str] = field(factory=list)
    kinds: set[str] = field(factory=set)
    hurt: set[str] = field(factory=set)
    rounds: int = 0
    answers: int = 0

    def warm_up(self) -> None:
        """Pull once and wait for the end, so that everything is open that stays open."""
        content = Content(MIB, seed=-1)
        target = f"/v2/library/warm/blobs/{content.digest}"
        self.upstream.serve(Served(target, content))
        get(self.proxy.port, target)
        wait_until(self.content_path(content).exists, 10, "the first blob is kept")
        self.evict(content)

    def play(self, turn: Round) -> None:
        """Let a round happen, judge it, and see that everything heals."""
        self.rounds += 1
        self.upstream.serve(*turn.served)
        before = len(noted(self.upstream))
        asked = self._happen(turn)
        for one in asked:
            self._judge(turn, one)
        if self.laws:
            return  # what is broken may hang on; the round can be repeated
        self._heal(turn)
        if turn.storage_fault is None:
            self.laws += [f"round {turn.number}: {law}" for law in twice_at_once(noted(self.upstream)[before:])]

    def _happen(self, turn: Round) -> list[Asked]:
        """Let all clients loose, and hurt the storage meanwhile."""
        threads = [threading.Thread(target=guest.visit, args=(self.proxy.port,), daemon=True) for guest in turn.guests]
        for thread in threads:
            thread.start()
        time.sleep(turn.storage_delay_s)
        with self._hurting(turn.storage_fault):
            end_s = time.monotonic() + GUEST_S
            for thread, guest in zip(threads, turn.guests, strict=True):
                thread.join(max(0.0, end_s - time.monotonic()))
                trouble = "never ends" if thread.is_alive() else guest.trouble
                if trouble is not None:
                    self.laws.append(f"round {turn.number}: {guest.kind} of {guest.subject.fault.name}: {trouble}")
        self.kinds.update(guest.kind for guest in turn.guests)
        return [one for guest in turn.guests for one in guest.asked]

    def _judge(self, turn: Round, one: Asked) -> None:
        """Note every law that an answer breaks."""
        self.answers += 1
        subject, answer = one.subject, one.answer
        about = f"{subject.fault.name}, {subject.content.size_bytes} bytes, storage {turn.storage_fault}"
        asked = f"{one.method} {one.part or 'all'}"
        error = answer.body[:200] if answer.status >= 400 else b""
        for law in broken_laws(one, turn.storage_fault is None):
            self.laws.append(f"round {turn.number}: {about}: {asked}: {law}: {answer} {error!r}")

    def _heal(self, turn: Round) -> None:
        """From a healthy upstream everything can be pulled, soon."""
        self.upstream.serve(*(Served(one.target, one.content, one.media_type) for one in turn.subjects))
        end_s = time.monotonic() + HEAL_S
        for subject in turn.subjects:
            while (trouble := self._trouble_of(subject)) is not None:
                if time.monotonic() > end_s:
                    self.laws.append(f"round {turn.number}: {subject.fault.name} does not heal: {trouble}")
                    return
                time.sleep(0.2)

    def _trouble_of(self, subject: Subject) -> Answer | None:
        """Return the answer to a GET if it does not bring the content."""
        answer = get(self.proxy.port, subject.asked_as)
        right = answer.status == 200 and answer.ended == "whole" and answer.digest == subject.content.digest
        return None if right else answer

    # --- the storage

    def content_path(self, content: Content) -> Path:
        """Where content lies when it is kept."""
        digest = content.digest.removeprefix("sha256:")
        return self.proxy.fs_root / "blobs" / "sha256" / digest[:2] / digest

    def evict(self, content: Content) -> None:
        """Take content away as a sweep does: the content first."""
        path = self.content_path(content)
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.meta.json").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _hurting(self, fault: str | None) -> Iterator[None]:
        """Let the storage fail, and let it work again afterwards."""
        if fault is None:
            yield
            return
        self.hurt.add(fault)
        hurt = {"file too large": self._small_files, "no directory": self._no_directory, "disk full": self._full}
        with hurt[fault]():
            yield

    @contextlib.contextmanager
    def _small_files(self) -> Iterator[None]:
        """Every write beyond 64 KiB of a file fails; so does the log, which nobody needs here."""
        resource.prlimit(self.proxy.pid, resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            resource.prlimit(self.proxy.pid, resource.RLIMIT_FSIZE, _NO_LIMIT)

    @contextlib.contextmanager
    def _no_directory(self) -> Iterator[None]:
        """The directory of kept content is a file: nothing is found, nothing can be published."""
        blobs = self.proxy.fs_root / "blobs"
        away = blobs.with_name("blobs-away")
        blobs.mkdir(exist_ok=True)
        blobs.rename(away)
        blobs.write_bytes(b"")
        try:
            yield
        finally:
            blobs.unlink()
            away.rename(blobs)

    @contextlib.contextmanager
    def _full(self) -> Iterator[None]:
        """No byte is free."""
        filler = self.proxy.fs_root / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MIB))
        try:
            yield
        finally:
            filler.unlink()


def make_world(shop: Workshop) -> World:
    """Start everything; the store lies on a small file system of its own where that is allowed."""
    upstream = start_law_upstream(shop)
    root = shop.directory("store")
    tmpfs = ["mount", "-t", "tmpfs", "-o", f"size={STORE_BYTES},mode=0700", "tmpfs", str(root)]
    mounted = os.geteuid() == 0 and subprocess.run(tmpfs, check=False, capture_output=True, timeout=20).returncode == 0
    proxy = start_proxy(shop, upstream.url, fs_root=root, silence_timeout_s=SILENCE_S, min_free=0, spool_stall_s=5)
    return World(upstream, proxy, STORAGE_FAULTS if mounted else STORAGE_FAULTS[:2])
