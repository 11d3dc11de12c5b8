"""Serving: what is here becomes an answer."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from txociproxy.interfaces import Ask, Elsewhere, HeaderList, Local, Outcome, Serve, Visibility
from txociproxy.manifests import Manifest
from txociproxy.oci.headers import cache_control


@frozen
class Serving:
    """Makes answers of content.

    :ivar visibility: who in front of us may keep them.
    """

    visibility: Visibility

    def serve(self, ask: Ask, found: Local, outcome: Outcome, control: str, vary: bool = False) -> Serve:
        """Answer with content that is here; a HEAD has no body."""
        if ask.method == "HEAD":
            found.body.close()
        body = None if ask.method == "HEAD" else found.body
        return Serve(found.descriptor, replayed(ask, found), body, outcome, control, vary_accept=vary)

    def manifest(self, ask: Ask, manifest: Manifest, own: bool, control: str, vary: bool = False) -> Serve:
        """Answer with a manifest that has just come.

        :param own: whether this client's own ask brought it.
        """
        return self.serve(ask, manifest.to_local(), outcome_of(manifest, own), control, vary)

    def described(self, ask: Ask, found: Elsewhere) -> Serve:
        """Answer with what is known of content that lies elsewhere, without its bytes."""
        return Serve(found.descriptor, replayed(ask, found), None, "hit", self.control("digest"))

    def control(self, kind: Literal["digest", "tag", "latest", "revalidate"]) -> str:
        """Return the value of Cache-Control."""
        return cache_control(kind, self.visibility)


def replayed(ask: Ask, found: Local | Elsewhere) -> HeaderList:
    """Return the kept header fields, for the namespace that they came from (RULES E10)."""
    return found.headers if found.namespace == ask.pull.namespace else ()


def outcome_of(manifest: Manifest, own: bool) -> Outcome:
    """Return how a manifest that has just come came to this client."""
    if not manifest.is_kept:
        return "bypass"
    return "miss" if own else "join"
