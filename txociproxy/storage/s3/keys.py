"""The names of objects in a bucket: those that files have under a root, behind a prefix."""

from __future__ import annotations

from pathlib import Path

from attrs import define, field

from txociproxy.interfaces import TagName
from txociproxy.oci.errors import OCIError
from txociproxy.oci.names import Digest
from txociproxy.storage.layout import HELD_END, SIDECAR_END, Layout


@define(frozen=True, eq=False)
class Keys:
    """The keys of one store.

    :ivar prefix: without slashes at its ends; empty is the whole bucket.
    """

    prefix: str
    _layout: Layout = field(init=False)

    @_layout.default
    def _under_the_prefix(self) -> Layout:
        return Layout(Path(self.prefix))

    @property
    def marker(self) -> str:
        """Says which layout and mode the store has."""
        return str(self._layout.marker)

    @property
    def content_scope(self) -> str:
        """What every key of content and of what is said of it begins with."""
        return f"{self._layout.root / 'blobs'}/"

    @property
    def tag_scope(self) -> str:
        """What every key of a tag begins with."""
        return f"{self._layout.root / 'tags'}/"

    def content(self, digest: Digest, held: bool = False) -> str:
        """The content itself, open to all namespaces or held for some.  Its existence is the hit."""
        return str(self._layout.content(digest, held))

    def sidecar(self, digest: Digest, held: bool = False) -> str:
        """What is known about the content of that name."""
        return str(self._layout.sidecar(digest, held))

    def tag(self, name: TagName) -> str:
        """The pointers of a tag."""
        return str(self._layout.tag(name))

    def lease(self, digest: Digest) -> str:
        """Says that somebody is fetching this content."""
        return str(self._layout.root / "leases" / digest.algorithm / digest.hex)

    def digest_of(self, key: str) -> tuple[Digest, bool] | None:
        """Return which content lies under a key, and whether it is held; None if it is no content."""
        name = key.rpartition("/")[2]
        if name.endswith(SIDECAR_END):
            return None
        held = name.endswith(HELD_END)
        for algorithm in ("sha256", "sha512"):
            try:
                digest = Digest.parse(f"{algorithm}:{name.removesuffix(HELD_END)}")
            except OCIError:
                continue
            return (digest, held) if key == self.content(digest, held) else None
        return None
