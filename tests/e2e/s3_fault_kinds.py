"""What a faulty relay before S3 is told to do, and what it saw: requests and what becomes of them."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class S3Request:
    """One request on its way to the server.

    :ivar fields: the lines of its head after the first one, as they came.
    """

    method: str
    target: str
    fields: bytes = field(default=b"", repr=False)

    @property
    def key(self) -> str:
        """Bucket and key, without the query."""
        return self.target.partition("?")[0]

    @property
    def is_content(self) -> bool:
        """Whether it is about content, and not about what is said of it, a tag or the bucket."""
        return "/blobs/" in self.key and not self.key.endswith(".meta.json")

    @property
    def is_part(self) -> bool:
        """Whether it brings a part of a multipart upload."""
        return self.method == "PUT" and "partNumber=" in self.target


@frozen
class Fault:
    """What becomes of a request; a default one just passes.

    :ivar refuses: no connection is taken at all, and those that exist are reset; counts for everything.
    :ivar hangs: it is taken and never answered, and never reaches the server.
    :ivar status: answered by the relay itself, with ``code`` as the word for it.
    :ivar bytes_per_s: how fast bodies move, in both directions; 0 is as fast as they come.
    :ivar cut_at: after so many bytes of the answer, head included, the connection is reset; ``stall_at``: after so many
        nothing more comes, and no end.
    """

    refuses: bool = False
    hangs: bool = False
    status: int | None = None
    code: bytes = b"SlowDown"
    bytes_per_s: int = 0
    cut_at: int | None = None
    stall_at: int | None = None


PASS, REFUSE, HANG = Fault(), Fault(refuses=True), Fault(hangs=True)
BUSY = Fault(status=503)
# So slow that not even the head of an answer comes while anybody waits.
CRAWL = Fault(bytes_per_s=100)
