"""Walking over a bucket: page by page, so that what is in memory does not grow with what is in the bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import groupby

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txociproxy.oci.names import Descriptor, Digest
from txociproxy.storage.layout import Sidecar, describe
from txociproxy.storage.s3.keys import Keys

Page = tuple[list[tuple[str, int]], str | None]
SIDECARS_AT_ONCE = 16


@frozen
class Entry:
    """One object of content."""

    digest: Digest
    held: bool
    size_bytes: int


async def walk(
    keys: Keys,
    page: Callable[[str, str | None], Awaitable[Page]],
    sidecar: Callable[[Digest, bool], Awaitable[Sidecar]],
    is_known: Callable[[Digest], bool],
) -> AsyncIterator[Descriptor]:
    """Iterate over the content of a bucket, open and held as one, what is cut short left out.

    S3 lists keys in the order of their bytes, so that all objects of one digest come one after the other.  One page of
    keys is in memory, whatever there is in the bucket.

    :param page: lists up to 1000 keys behind a prefix, after what the page before said.
    :param sidecar: what is said of content; a made up one where that cannot be read.
    :param is_known: content that is passed over, without a look at its sidecar.
    """
    last: list[Entry] = []
    after: str | None = None
    while True:
        rows, after = await page(keys.content_scope, after)
        groups = [list(group) for _, group in groupby((*last, *_entries(keys, rows)), lambda entry: entry.digest)]
        last = groups.pop() if after is not None and groups else []  # it may go on on the next page
        unknown = [group for group in groups if not is_known(group[0].digest)]
        for start in range(0, len(unknown), SIDECARS_AT_ONCE):
            for descriptor in await _described(unknown[start : start + SIDECARS_AT_ONCE], sidecar):
                yield descriptor
        if after is None:
            return


def _entries(keys: Keys, rows: Iterable[tuple[str, int]]) -> Iterator[Entry]:
    for key, size_bytes in rows:
        found = keys.digest_of(key)
        if found is not None:
            yield Entry(*found, size_bytes)


async def _described(
    groups: list[list[Entry]], sidecar: Callable[[Digest, bool], Awaitable[Sidecar]]
) -> list[Descriptor]:
    """Describe some digests at once.

    :raises StorageUnavailable: the first trouble of any of them.
    """

    async def describe_one(group: list[Entry]) -> Descriptor | None:
        for entry in sorted(group, key=lambda entry: entry.held):  # open content first, as whoever looks for it
            said = await sidecar(entry.digest, entry.held)
            if said.size_bytes in (None, entry.size_bytes):
                return describe(entry.digest, entry.size_bytes, said)
        return None

    asked = [Deferred.fromCoroutine(describe_one(group)) for group in groups]
    results: list[object] = [result for _, result in await DeferredList(asked, consumeErrors=True)]
    for result in results:
        if isinstance(result, Failure):
            result.raiseException()
    return [result for result in results if isinstance(result, Descriptor)]
