"""What all clients have in common: the cache as they see it, and files with remarks."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import field, frozen


def _without_slash(url: str) -> str:
    return url.rstrip("/")


@frozen
class Cache:
    """The cache, as clients see it.

    :ivar url: without a slash at its end.
    :ivar registries: what is pulled through it, as names of images begin.
    :ivar ca: the authority of its certificate, a file on the client.
    :ivar client_cert, client_key: what the client shows; both or none.
    :ivar insecure: whether its certificate is not checked.
    :raises ValueError: something cannot be together; the text says what.
    """

    url: str = field(converter=_without_slash)
    registries: tuple[str, ...]
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    insecure: bool = False

    def __attrs_post_init__(self) -> None:
        _check_url(self.url)
        if bool(self.client_cert) != bool(self.client_key):
            raise ValueError("--client-cert and --client-key: each needs the other")
        files = [path for path in (self.ca, self.client_cert, self.client_key) if path is not None]
        if self.is_plain and (files or self.insecure):
            raise ValueError("--url: certificates and --insecure count with https:// only")
        if self.ca and self.insecure:
            raise ValueError("--ca: counts for nothing with --insecure; leave one of them out")
        if not all(path.startswith("/") and path.isprintable() for path in files):
            raise ValueError("--ca, --client-cert, --client-key: write the file's whole path on the client, from / on")

    @property
    def host(self) -> str:
        """Host and port, as they stand in the URL."""
        return urlsplit(self.url).netloc

    @property
    def is_plain(self) -> bool:
        """Whether it is plain HTTP."""
        return self.url.startswith("http://")

    @property
    def is_loopback(self) -> bool:
        """Whether it is on the client's own machine; Docker, for one, takes plain HTTP from there without a word."""
        name = urlsplit(self.url).hostname or ""
        try:
            return ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"


@frozen
class File:
    """A file on the client.

    :ivar remarks: what to know about it, one line each.
    :ivar content: with its last line end; empty where there is only something to be done.
    """

    path: str
    remarks: tuple[str, ...]
    content: str


def printed(files: Iterable[File]) -> str:
    """Return files as a person reads them: each below a line with its path, remarks as comments in front."""
    return "\n".join("\n".join(_lines(file)) + f"\n{file.content}" for file in files)


def _lines(file: File) -> list[str]:
    return [f"# --- {file.path}", *(f"# {remark}" for remark in file.remarks)]


def quoted(text: str) -> str:
    """Return a string of TOML, JSON and YAML alike."""
    return json.dumps(text, ensure_ascii=False)


def certificate_files(cache: Cache, directory: str, tool: str) -> list[File]:
    """Return where tools of Docker's kind look for certificates of a registry (``certs.d/HOST:PORT``).

    :param directory: ``certs.d`` itself.
    :param tool: who looks there, for the remark.
    """
    names = (("ca.crt", cache.ca), ("client.cert", cache.client_cert), ("client.key", cache.client_key))
    copies = tuple(f"cp {shlex.quote(source)} {directory}/{cache.host}/{name}" for name, source in names if source)
    if not copies:
        return []
    remark = f"{tool} wants copies of these names here, the port in the directory's name as in the image's:"
    return [File(f"{directory}/{cache.host}/", (remark, *copies), "")]


def _check_url(url: str) -> None:
    """Refuse what is not the address of a cache; clients add their own paths.

    :raises ValueError: it is not.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        good = False
    odd = not good or parts.path or parts.query or parts.fragment
    if odd or not re.fullmatch(r"[a-z]+://[A-Za-z0-9._:\[\]-]+", url):
        raise ValueError("--url: write https://cache.example or http://cache.example:8080, without a path")
