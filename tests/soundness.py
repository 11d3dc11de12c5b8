"""What must be true of a store on disk at any time, whatever was killed and when."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path

from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import tags_from_json

SIDECAR_END = ".meta.json"
HELD_END = ".held"


def assert_store_sound(root: Path, is_at_rest: bool = False) -> list[Digest]:
    """Check everything below a root and return the digests of what is kept, open or held.

    :param is_at_rest: no process runs and the store has been prepared: nothing unfinished may lie there.
    """
    kept = [_check_content(root, path) for path in _files_below(root / "blobs")]
    for path in _files_below(root / "tags"):
        _check_tag(root, path)
    for path in _files_below(root / "ingest"):
        assert not is_at_rest, f"{path} is left over"
        assert is_locked(path), f"{path} belongs to nobody"
    return list(dict.fromkeys(digest for digest in kept if digest is not None))


def _files_below(path: Path) -> Iterator[Path]:
    return (found for found in sorted(path.rglob("*")) if not found.is_dir())


def _check_content(root: Path, path: Path) -> Digest | None:
    """Content is named by its bytes; a sidecar names its content, which may be gone."""
    algorithm, prefix, name = path.relative_to(root / "blobs").parts
    digest = _parsed(f"{algorithm}:{name.removesuffix(SIDECAR_END).removesuffix(HELD_END)}", path)
    assert prefix == digest.hex[:2], f"{path} lies in the wrong directory"
    if name.endswith(SIDECAR_END):
        _check_sidecar(path, digest)
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    assert found == digest.hex, f"{path} has the bytes of {found}"
    return digest


def _check_sidecar(path: Path, digest: Digest) -> None:
    """A sidecar is about its content; beside held content, and only there, it says for whom (RULES D3)."""
    sidecar = json.loads(path.read_bytes())
    assert sidecar["digest"] == str(digest), f"{path} is about {sidecar['digest']}"
    held = sidecar.get("held")
    if path.name.endswith(HELD_END + SIDECAR_END):
        assert isinstance(held, list) and held and held == sorted(set(held)), f"{path} is held for {held}"
        assert sidecar["namespace"] in held, f"{path} came from where it may not be seen"
    else:
        assert held is None, f"{path} is open and held for {held}"
    kept_at_s = sidecar.get("kept_at_s")  # releases before did not write it
    assert kept_at_s is None or math.isfinite(kept_at_s), f"{path} was kept at {kept_at_s}"


def _parsed(text: str, path: Path) -> Digest:
    try:
        return Digest.parse(text)
    except OCIError as error:
        raise AssertionError(f"{path} is not content") from error


def _check_tag(root: Path, path: Path) -> None:
    """A tag's file is whole, and every record in it can be believed."""
    parts = path.relative_to(root / "tags").parts
    assert parts[-2] == "_tags" and path.suffix == ".json", f"{path} is no tag"
    data = path.read_bytes()
    records = json.loads(data)["records"]
    assert len(tags_from_json(data)) == len(records) > 0, f"{path} has broken records"


def is_locked(path: Path) -> bool:
    """Say whether somebody alive owns this file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def open_files(root: Path) -> list[str]:
    """Return what this process holds open below a root, removed files included."""
    found = []
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{entry}"))
    return sorted(name for name in found if name.startswith(f"{root.resolve()}/"))


def assert_nothing_open(root: Path) -> None:
    """Check that no descriptor below a root has leaked."""
    assert open_files(root) == [], f"still open: {open_files(root)}"
