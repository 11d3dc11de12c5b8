"""Held content on the disk: its name, its sidecar, and what neither damage, copies nor races may open (RULES D3)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.soundness import assert_nothing_open, assert_store_sound
from tests.storage.disks import Disk, Outcome
from tests.storage.test_disk import DAMAGED
from txociproxy.interfaces import Local
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.oci.names import Digest
from txociproxy.storage.files import Files
from txociproxy.storage.layout import Sidecar
from txociproxy.storage.shelf import SMALL_BYTES

DATA = b"of those who may"
DIGEST = Digest.of(DATA)
OURS, THEIRS, NEITHER = "docker.io", "ghcr.io", "quay.io"
NAMES = st.lists(st.sampled_from((OURS, THEIRS)) | st.none() | st.integers() | st.text(max_size=3), max_size=4)


class HeldCase(SynchronousTestCase):
    """A prepared root."""

    def setUp(self) -> None:
        """Nothing is kept."""
        self.disk = Disk(Path(self.mktemp()))
        self.disk.storage.prepare("transparent")
        self.addCleanup(self.disk.files.bury)
        self.held = self.disk.layout.content(DIGEST, held=True)
        self.sidecar = self.disk.layout.sidecar(DIGEST, held=True)

    def hold(self, namespace: str = OURS) -> None:
        """Keep the content for a namespace."""
        self.disk.keep(DATA, namespace, held=True)

    def seen(self, disk: Disk | None = None) -> list[str]:
        """Return the namespaces that find the content."""
        found = []
        for namespace in (OURS, THEIRS, NEITHER):
            data = (disk or self.disk).read(DIGEST, namespace)
            self.assertIn(data, (None, DATA))
            if data is not None:
                found.append(namespace)
        return found

    def find(self, namespace: str = OURS, digest: Digest = DIGEST) -> Local | None:
        """Look for it."""
        outcome = Outcome(self.disk.storage.find(digest, namespace))
        self.disk.work()
        self.assertIsNone(outcome.error)
        local: Local | None = outcome.value
        if local is not None:
            local.body.close()
        return local

    def walked(self) -> int:
        """Count what a walk meets."""

        async def walk() -> int:
            return len([descriptor async for descriptor in self.disk.storage.walk()])

        outcome = Outcome(walk())
        self.disk.work()
        count: int = outcome.value
        return count


class NameTests(HeldCase):
    """The name says whether, the sidecar says for whom."""

    def names(self) -> list[str]:
        """Return what lies in the content's directory, without the digest."""
        return sorted(name.removeprefix(DIGEST.hex) for name in os.listdir(self.held.parent))

    def test_held_content_lies_under_a_name_of_its_own_until_it_is_opened(self) -> None:
        """A process that knows nothing of it does not find it; when it is open nothing is left of it."""
        self.hold(THEIRS)
        self.hold(OURS)
        self.assertEqual(self.names(), [".held", ".held.meta.json"])
        self.assertEqual(json.loads(self.sidecar.read_bytes())["held"], [OURS, THEIRS])
        self.disk.keep(DATA, NEITHER)
        self.hold(OURS)
        self.assertEqual(self.names(), ["", ".meta.json"])
        self.assertIsNone(json.loads(self.disk.layout.sidecar(DIGEST).read_bytes())["held"])
        self.disk.storage.remove(DIGEST)
        self.disk.work()
        self.assertEqual(self.names(), [])

    def test_a_copy_without_modes_and_sidecars_opens_nothing(self) -> None:
        """Nor does giving every file every right."""
        self.hold()
        copy = Path(self.mktemp())
        shutil.copytree(
            self.disk.root, copy, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("*.meta.json")
        )
        for path in copy.rglob("*"):
            path.chmod(0o777)
        self.assertEqual(self.seen(Disk(copy)), [])

    def test_a_sidecar_alone_counts_for_nothing(self) -> None:
        """Neither one that names others nor one that says open, as a death or a removal by hand leaves them."""
        self.hold(THEIRS)
        self.held.unlink()
        self.assertEqual(self.seen(), [])
        self.hold(OURS)
        self.assertEqual(self.seen(), [OURS])
        self.disk.keep(DATA)
        self.disk.layout.content(DIGEST).unlink()
        self.hold(OURS)
        self.assertEqual(self.seen(), [OURS])

    def test_held_content_beside_open_content_is_nothing_more(self) -> None:
        """The process died before it could remove it: met once, removed with the other, cleared by the next commit."""
        for _ in range(2):
            self.hold(THEIRS)
            spare = self.held.read_bytes(), self.sidecar.read_bytes()
            self.disk.keep(DATA)
            self.held.write_bytes(spare[0])
            self.sidecar.write_bytes(spare[1])
            self.assertEqual((self.seen(), self.walked()), ([OURS, THEIRS, NEITHER], 1))
            self.disk.storage.remove(DIGEST)
            self.disk.work()
            self.assertEqual((self.seen(), self.walked(), self.names()), ([], 0, []))
        self.held.write_bytes(spare[0])
        self.sidecar.write_bytes(spare[1])
        self.disk.keep(DATA)
        self.assertEqual(self.names(), ["", ".meta.json"])

    def test_a_held_name_that_cannot_be_removed_fails_no_commit(self) -> None:
        """The content is open, durably, before that is tried."""
        for step in ("unlink held content", "unlink held sidecar"):
            self.hold(THEIRS)
            self.disk.files.faults = {step: OSError(errno.EIO, "Input/output error")}
            self.disk.keep(DATA)
            self.assertEqual(self.seen(), [OURS, THEIRS, NEITHER])
            self.disk.files.faults = {}
            self.disk.storage.remove(DIGEST)
            self.disk.work()


class DamageTests(HeldCase):
    """What was lost or torn hides held content, and never opens it; the next fetch mends it."""

    def assert_hidden_and_mended(self) -> None:
        """Nobody sees it, no look is an error, and a new commit is for its own namespace only."""
        self.assertEqual((self.seen(), self.walked()), ([], 1))
        self.disk.files.faults.clear()
        self.hold(THEIRS)
        self.assertEqual(self.seen(), [THEIRS])
        assert_nothing_open(self.disk.root)
        assert_store_sound(self.disk.root, is_at_rest=True)

    def test_without_its_sidecar_it_is_hidden(self) -> None:
        """There is nobody left that it is for."""
        self.hold()
        self.sidecar.unlink()
        self.assert_hidden_and_mended()

    def test_with_a_torn_or_foreign_sidecar_it_is_hidden(self) -> None:
        """Also with one that says open, as that of open content does."""
        for text in ("", "[]", "null", "{}", '{"held": null}', '{"held": "docker.io"}', '{"held": {"docker.io": 1}}'):
            self.hold()
            self.sidecar.write_text(text)
            self.assert_hidden_and_mended()
        self.hold()
        self.sidecar.write_bytes(self.sidecar.read_bytes()[:-20])
        self.assert_hidden_and_mended()

    def test_with_a_sidecar_that_cannot_be_read_it_is_hidden(self) -> None:
        """It is found again when the disk is well."""
        self.hold()
        self.disk.files.faults["read held sidecar"] = OSError(errno.EIO, "Input/output error")
        self.assertEqual(self.seen(), [])
        self.disk.files.faults.clear()
        self.assertEqual(self.seen(), [OURS])

    @given(DAMAGED | NAMES.map(lambda names: json.dumps({"held": names}).encode()))
    @settings(deadline=None)
    def test_no_damage_shows_it_to_anybody_who_is_not_named(self, data: bytes) -> None:
        """Who is named sees it."""
        self.hold()
        self.sidecar.write_bytes(data)
        try:
            known = json.loads(data)
            names = known["held"] if isinstance(known["held"], list) else []
        except (ValueError, KeyError, TypeError, RecursionError):
            names = []
        self.assertLessEqual(set(self.seen()), {name for name in names if isinstance(name, str)})
        if data.startswith(b'{"held": [') and data.endswith(b"]}"):
            self.assertEqual(self.seen(), [name for name in (OURS, THEIRS) if name in names])

    def test_only_names_are_believed_to_be_names(self) -> None:
        """Each once, in order."""
        self.assertEqual(Sidecar.from_json(b'{"held": [1, "b", null, ["c"], "a", "b"]}').held, ("a", "b"))
        self.assertEqual(Sidecar.from_json(b'{"held": []}').held, ())

    def test_held_content_that_was_cut_is_a_miss_and_is_published_over(self) -> None:
        """For those whom it was held for too, who stay known."""
        self.hold(THEIRS)
        os.truncate(self.held, 3)
        self.assertEqual(self.seen(), [])
        self.hold(OURS)
        self.assertEqual(self.seen(), [OURS, THEIRS])
        assert_nothing_open(self.disk.root)

    def test_open_content_that_was_cut_hides_no_whole_one_beside_it(self) -> None:
        """What is held is still seen by those it is held for."""
        self.hold(THEIRS)
        spare = self.held.read_bytes(), self.sidecar.read_bytes()
        self.disk.keep(DATA)
        self.held.write_bytes(spare[0])
        self.sidecar.write_bytes(spare[1])
        os.truncate(self.disk.layout.content(DIGEST), 3)
        self.assertEqual((self.seen(), self.walked()), ([THEIRS], 1))
        assert_nothing_open(self.disk.root)

    def test_a_commit_that_cannot_tell_what_is_there_publishes_nothing(self) -> None:
        """It might be open already, or held for others; only a name that does not exist is not there."""
        self.assertRaises(NotADirectoryError, Files().is_there, self.disk.layout.marker / "x")
        self.hold(THEIRS)
        for step in ("look for content", "look for held content"):
            self.disk.files.faults = {step: OSError(errno.EIO, "Input/output error")}
            spool = self.disk.begin(DATA)
            outcome = self.disk.commit(spool, DATA, held=True)
            self.disk.work()
            self.assertIsInstance(outcome.error, StorageUnavailable)
            self.disk.files.faults = {}
            spool.close()
            self.disk.work()
            self.assertEqual(self.seen(), [THEIRS])
            assert_nothing_open(self.disk.root)


class CostTests(HeldCase):
    """What a look asks of the disk."""

    def operations(self, namespace: str = OURS, digest: Digest = DIGEST, is_old: bool = False) -> list[str]:
        """Return what a find does with content that was used just now, or long ago."""
        for path in (self.held, self.disk.layout.content(DIGEST)):
            if path.exists() and not is_old:
                os.utime(path, (self.disk.now_s, self.disk.now_s))
        self.disk.files.operations.clear()
        self.find(namespace, digest)
        return self.disk.files.operations

    def test_a_hit_on_open_content_costs_nothing_more(self) -> None:
        """Open, sidecar, measure."""
        self.disk.keep(DATA)
        self.assertEqual(self.operations(), ["open content", "read sidecar", "measure content", "close content"])

    def test_a_hit_on_held_content_costs_one_look_more(self) -> None:
        """At the name of open content."""
        self.hold()
        held = ["open held content", "read held sidecar", "measure held content", "close held content"]
        self.assertEqual(self.operations(), ["open content", *held])

    def test_a_miss_costs_two_looks_more(self) -> None:
        """One at the held name, and a last one at the open one."""
        self.assertEqual(self.operations(), ["open content", "open held content", "open content"])

    def test_only_those_who_see_it_use_it(self) -> None:
        """A look by others is no use of it."""
        self.hold()
        os.utime(self.held, (self.disk.now_s - 5000, self.disk.now_s - 5000))
        self.assertNotIn("touch held content", self.operations(THEIRS, is_old=True))
        self.walked()
        self.assertNotIn("touch held content", self.disk.files.operations)
        self.assertIn("touch held content", self.operations(OURS, is_old=True))


class RaceTests(HeldCase):
    """What others do between two steps of a look or a commit."""

    def before(self, step: str, action: Callable[[], object]) -> None:
        """Do something right before the first operation of that name."""
        do = self.disk.files._do
        pending = [action]

        def watched(name: str, *args: object, **named: object) -> object:
            if name == step and pending:
                pending.pop()()
            return do(name, *args, **named)  # type: ignore[arg-type]

        self.disk.files._do = watched  # type: ignore[method-assign,assignment]

    def other(self) -> Disk:
        """Return another process on the same root."""
        other = Disk(self.disk.root)
        self.addCleanup(other.files.bury)
        return other

    def test_content_that_is_opened_during_a_look_is_found(self) -> None:
        """Whenever it happens: those who could see it never miss it."""
        other = self.other()
        for step in ("open content", "open held content", "read held sidecar", "measure held content"):
            for namespace in (OURS, THEIRS):
                self.hold(OURS)
                self.before(step, lambda: other.keep(DATA, NEITHER))
                data = self.disk.read(DIGEST, namespace)
                self.assertIn(data, (DATA,) if namespace == OURS else (DATA, None), f"opened before {step}")
                self.disk.storage.remove(DIGEST)
                self.disk.work()
                assert_nothing_open(self.disk.root)

    def test_a_look_while_it_is_published_sees_the_old_or_the_new(self) -> None:
        """Opening, or holding for another one: at every operation, those who could see it still do."""
        other = self.other()
        for namespace, held, after in ((THEIRS, True, [OURS, THEIRS]), (THEIRS, False, [OURS, THEIRS, NEITHER])):
            self.hold(OURS)
            seen: list[list[str]] = []
            do = self.disk.files._do

            def watched(
                name: str,
                *args: object,
                do: Callable[..., object] = do,
                seen: list[list[str]] = seen,
                half: Callable[[], None] | None = None,
            ) -> object:
                seen.append(self.seen(other))
                return do(name, *args, half=half)

            self.disk.files._do = watched  # type: ignore[method-assign,assignment]
            spool = self.disk.begin(DATA, chunk_bytes=1 << 20)
            outcome = self.disk.commit(spool, DATA, namespace=namespace, held=held)
            self.disk.work()
            self.assertEqual((outcome.ended, outcome.error), (True, None))
            self.disk.files._do = do  # type: ignore[method-assign]
            spool.close()
            self.disk.work()
            self.assertEqual(sorted(seen, key=len), seen)
            self.assertEqual({tuple(each) for each in seen}, {(OURS,), tuple(after)})
            self.disk.storage.remove(DIGEST)
            self.disk.work()

    def test_what_is_there_is_looked_for_under_the_lock(self) -> None:
        """Else two that hold it at once forget each other, or one of them closes what the other opens."""
        self.hold(THEIRS)
        self.disk.files.operations.clear()
        self.hold(OURS)
        done = self.disk.files.operations
        self.assertEqual(
            done[done.index("fsync spool") :],
            [
                "fsync spool",
                "lock directory",
                *("look for content", "look for held content", "read held sidecar"),
                *("create new sidecar", "lock new sidecar", "write new sidecar", "fsync new sidecar"),
                *("rename held sidecar", "close new sidecar", "rename held content", "fsync directory"),
                "close directory",
                "close spool",
            ],
        )


class TimeTests(HeldCase):
    """When content was kept."""

    def test_it_is_the_time_of_the_last_commit(self) -> None:
        """Of open, held and large content."""
        large = DATA * SMALL_BYTES
        for data in (DATA, large):
            for held in (True, False, True):
                self.disk.now_s += 1000.25
                digest = self.disk.keep(data, held=held)
                local = self.find(digest=digest)
                assert local is not None
                self.assertEqual(local.kept_at_s, self.disk.now_s)

    def test_what_says_no_time_was_kept_at_no_known_time(self) -> None:
        """And is a hit all the same, as is what releases before have kept."""
        self.disk.keep(DATA)
        sidecar = self.disk.layout.sidecar(DIGEST)
        known = json.loads(sidecar.read_bytes())
        for text in ("NaN", "Infinity", "-Infinity", "true", '"1800000000"', "null", "[]", "1e999", "1" + "0" * 400):
            sidecar.write_text(json.dumps({**known, "kept_at_s": 0}).replace('"kept_at_s": 0', f'"kept_at_s": {text}'))
            local = self.find()
            assert local is not None
            self.assertIsNone(local.kept_at_s, text)
            self.assertEqual(local.namespace, OURS)
        sidecar.write_text(json.dumps({key: known[key] for key in known if key not in ("held", "kept_at_s")}))
        local = self.find(THEIRS)
        assert local is not None
        self.assertEqual((local.kept_at_s, local.namespace), (None, OURS))

    def test_a_length_that_is_none_is_not_believed(self) -> None:
        """A damaged sidecar makes no miss of open content."""
        self.assertIsNone(Sidecar.from_json(b'{"size_bytes": true}').size_bytes)
