"""Where things lie under the root, and the small JSON files beside the content.

The paths are made of values that have been parsed, so none of them can leave the root.

Held content (RULES D3) has a name of its own, ``<hex>.held``, and a sidecar of its own that says for whom it is held.
So what is lost or damaged beside it, and whatever a copy does to modes and attributes, can hide it but never open it
(docs/decisions/006).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from attrs import frozen

from txociproxy.interfaces import HeaderList, TagName, TagRecord
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Descriptor, Digest

VERSION = 1
BLOB_TYPE = "application/octet-stream"
MAX_ACCEPT_CLASSES = 4
HELD_END = ".held"
SIDECAR_END = ".meta.json"
# RFC 9110 section 5.5: what goes into a header field; a damaged file must not end one.
_FIELD_TEXT = re.compile(r"[\t -~\x80-\xff]*")


@frozen
class Layout:
    """The paths of a store."""

    root: Path

    @property
    def marker(self) -> Path:
        """Says which layout and mode the store has."""
        return self.root / ".txociproxy.json"

    @property
    def ingest(self) -> Path:
        """The directory of unfinished content; on the same file system, so that a rename is atomic."""
        return self.root / "ingest"

    def spool(self, name: str) -> Path:
        """An unfinished file."""
        return self.ingest / f"{name}.spool"

    def content(self, digest: Digest, held: bool = False) -> Path:
        """The content itself, open to all namespaces or held for some.  Its existence is the hit."""
        name = f"{digest.hex}{HELD_END}" if held else digest.hex
        return self.root / "blobs" / digest.algorithm / digest.hex[:2] / name

    def sidecar(self, digest: Digest, held: bool = False) -> Path:
        """What is known about the content of that name."""
        content = self.content(digest, held)
        return content.with_name(f"{content.name}{SIDECAR_END}")

    def tag(self, name: TagName) -> Path:
        """The pointers of a tag; ``_tags`` cannot be a component of a repository."""
        return self.root.joinpath("tags", name.namespace, *str(name.repository).split("/"), "_tags", f"{name.tag}.json")


@frozen
class Sidecar:
    """What is kept beside content.  A missing or broken one is never a miss of open content.

    :ivar namespace: whose header fields these are: that of the last commit.
    :ivar held: beside held content: the namespaces that may see it, sorted; None is said of open content.
    :ivar kept_at_s: when it was published last, in seconds since the epoch; None is not known.
    """

    media_type: str
    size_bytes: int | None
    namespace: str | None
    headers: HeaderList
    held: tuple[str, ...] | None = None
    kept_at_s: float | None = None

    def to_json(self, digest: Digest) -> bytes:
        """Write it."""
        return _dump(
            {
                "version": VERSION,
                "digest": str(digest),
                "media_type": self.media_type,
                "size_bytes": self.size_bytes,
                "namespace": self.namespace,
                "headers": [list(pair) for pair in self.headers],
                "held": None if self.held is None else list(self.held),
                "kept_at_s": self.kept_at_s,
            }
        )

    @classmethod
    def from_json(cls, data: bytes | None) -> Sidecar:
        """Read it; whatever cannot be believed is left out."""
        found = _load(data)
        headers = found.get("headers")
        pairs = headers if isinstance(headers, list) else []
        size_bytes = found.get("size_bytes")
        return cls(
            _text(found.get("media_type")) or BLOB_TYPE,
            size_bytes if isinstance(size_bytes, int) and not isinstance(size_bytes, bool) else None,
            _text(found.get("namespace")),
            tuple((pair[0], pair[1]) for pair in pairs if _is_pair(pair)),
            _names(found.get("held")),
            _instant(found.get("kept_at_s")),
        )


def describe(digest: Digest, size_bytes: int, sidecar: Sidecar) -> Descriptor:
    """Make the descriptor of content that is kept."""
    return Descriptor(digest, size_bytes, sidecar.media_type)


def tags_to_json(records: tuple[TagRecord, ...]) -> bytes:
    """Write the pointers of one tag."""
    return _dump({"version": VERSION, "records": [_record_to_json(record) for record in records]})


def tags_from_json(data: bytes | None) -> tuple[TagRecord, ...]:
    """Read the pointers of one tag; what cannot be believed is left out."""
    records = _load(data).get("records")
    found = [_record_from_json(record) for record in records] if isinstance(records, list) else []
    return tuple(record for record in found if record is not None)[:MAX_ACCEPT_CLASSES]


def with_record(records: tuple[TagRecord, ...], record: TagRecord) -> tuple[TagRecord, ...]:
    """Put a record in front, in place of the one with its Accept class."""
    others = tuple(other for other in records if other.accept_class != record.accept_class)
    return (record, *others)[:MAX_ACCEPT_CLASSES]


def _record_to_json(record: TagRecord) -> dict[str, Any]:
    return {
        "accept": sorted(record.accept_class),
        "digest": str(record.digest),
        "media_type": record.media_type,
        "size_bytes": record.size_bytes,
        "checked_at_s": record.checked_at_s,
    }


def _record_from_json(found: Any) -> TagRecord | None:
    try:
        return TagRecord(
            frozenset(str(name) for name in found["accept"]),
            Digest.parse(found["digest"]),
            _text(found["media_type"]) or BLOB_TYPE,
            int(found["size_bytes"]),
            float(found["checked_at_s"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, OCIError):
        return None


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode("ascii")


def _load(data: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    """Return the value if it is text that may stand in a header field."""
    return value if isinstance(value, str) and _FIELD_TEXT.fullmatch(value) else None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_text(part) is not None for part in value)


def _names(value: Any) -> tuple[str, ...] | None:
    """Return who may see held content: the names in the list that can be believed."""
    return tuple(sorted({name for name in value if isinstance(name, str)})) if isinstance(value, list) else None


def _instant(value: Any) -> float | None:
    """Return a point in time, in seconds since the epoch, if the value is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
