"""Hypothesis strategies for the values of the language."""

from __future__ import annotations

from hypothesis import strategies as st

from txociproxy.oci.manifests import MANIFEST_TYPES
from txociproxy.oci.names import Digest, Repository, Tag
from txociproxy.oci.requests import BlobPull, ManifestPull, Page, Ping, Referrers, TagList, Target, TokenAsk

HEX = "0123456789abcdef"
WORD_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

digests = st.sampled_from((("sha256", 64), ("sha512", 128))).flatmap(
    lambda form: st.builds(Digest, st.just(form[0]), st.text(HEX, min_size=form[1], max_size=form[1]))
)
tags = st.builds(Tag, st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True))

words = st.text(WORD_CHARACTERS, min_size=1, max_size=9)
separators = st.sampled_from((".", "_", "__", "-", "--", "---", "/"))


@st.composite
def repository_paths(draw: st.DrawFn) -> str:
    """Draw words and what may stand between them."""
    path = draw(words)
    for _ in range(draw(st.integers(0, 6))):
        path += draw(separators) + draw(words)
    return path


@st.composite
def namespaces(draw: st.DrawFn) -> str:
    """Draw hosts as a client may write them: any case, a last dot, a port."""
    labels = draw(
        st.lists(st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,20}[a-zA-Z0-9])?", fullmatch=True), min_size=1, max_size=5)
    )
    port = draw(st.none() | st.integers(1, 65535))
    dot = draw(st.sampled_from(("", ".")))
    return ".".join(labels) + dot + ("" if port is None else f":{port}")


def _hosts() -> st.SearchStrategy[str]:
    """Return namespaces that read as a host in a path."""
    return namespaces().filter(lambda text: "." in text or ":" in text)


names = repository_paths() | st.builds("/".join, st.tuples(_hosts(), repository_paths()))
queries = st.builds(
    "&".join,
    st.lists(
        st.sampled_from(("n=2", "last=v1.0", "artifactType=application%2Fx", "empty", "x=", "NS=a", "q=a/b?c")),
        max_size=4,
    ),
)
repositories = st.builds(Repository, repository_paths())
media_types = st.sampled_from((*MANIFEST_TYPES, "application/json", "text/plain", "application/vnd.acme+json"))

_maybe = st.none() | namespaces()
targets: st.SearchStrategy[Target] = st.one_of(
    st.builds(Page, st.sampled_from(("healthz", "readyz", "metrics"))),
    st.builds(Ping, _maybe),
    st.builds(TokenAsk, _maybe),
    st.builds(ManifestPull, names, digests | tags, _maybe),
    st.builds(BlobPull, names, digests, _maybe),
    st.builds(TagList, names, _maybe, queries),
    st.builds(Referrers, names, digests, _maybe, queries),
)
