"""Serving: what is here becomes an answer."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from txociproxy.interfaces import Ask, Local, Outcome, Serve, Visibility
from txociproxy.manifests import Manifest
from txociproxy.oci.headers import cache_control


@frozen
class Serving:
    """Makes answers of content.

    :ivar visibility: who in front of us may keep them.
    """

    visibility: Visibility

    def serve(self, ask: Ask, found: Local, outcome: Outcome, control: str, vary: bool = False) -> Serve:
        """Answer with content that is here; a HEAD has no body.

        Header fields are replayed to the namespace that they came from (RULES E10).
        """
        headers = found.headers if found.namespace == ask.pull.namespace else ()
        if ask.method == "HEAD":
            found.body.close()
        body = None if ask.method == "HEAD" else found.body
        return Serve(found.descriptor, headers, body, outcome, control, vary_accept=vary)

    def manifest(self, ask: Ask, manifest: Manifest, own: bool, control: str, vary: bool = False) -> Serve:
        """Answer with a manifest that has just come.

        :param own: whether this client's own ask brought it.
        """
        return self.serve(ask, manifest.to_local(), outcome_of(manifest, own), control, vary)

    def control(self, kind: Literal["digest", "tag", "latest", "revalidate"]) -> str:
        """Return the value of Cache-Control."""
        return cache_control(kind, self.visibility)


def outcome_of(manifest: Manifest, own: bool) -> Outcome:
    """Return how a manifest that has just come came to this client."""
    if not manifest.is_kept:
        return "bypass"
    return "miss" if own else "join"
