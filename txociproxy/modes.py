"""The modes: who may have what, and what happens when the upstream is gone."""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from txociproxy.interfaces import Admitted, Ask, IMode, Refused, Visibility


@implementer(IMode)
@define(eq=False)
class Transparent:
    """Whoever can reach us may have what we have; kept content needs no upstream."""

    answers_head_from_cache: bool = True
    survives_upstream_loss: bool = True
    visibility: Visibility = "public"

    def admit(self, ask: Ask) -> Deferred[Admitted | Refused]:
        """Everybody is admitted, and nobody is asked."""
        return succeed(Admitted())
