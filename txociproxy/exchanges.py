"""Exchanges: what a client shows at our token endpoint becomes what its upstream wants to see (RULES C4)."""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger

from txociproxy.asking import Asking
from txociproxy.interfaces import Exchanged, Relay
from txociproxy.oci.errors import OCIError, UpstreamUnreachable
from txociproxy.oci.names import Repository


@define(eq=False)
class Exchanges:
    """Exchanges credentials; nothing is kept, so that a password that was revoked is.

    :ivar _survives: whether the mode goes on without upstream: then a lost token server gives nobody's token, which
        is good for what is kept.
    """

    _asking: Asking
    _survives: bool

    log = Logger()

    async def exchange(
        self, namespace: str, repositories: tuple[Repository, ...], authorization: str
    ) -> Exchanged | Relay:
        """Return what the upstream wants to see, or its token server's refusal.

        :raises UpstreamUnreachable: there is no answer, and the mode does not survive that.
        :raises OCIError: the token server may not see credentials for this upstream, and the mode insists.
        """
        try:
            outcome = await self._asking.upstream(namespace).exchange(repositories, authorization)
        except (UpstreamUnreachable, OCIError) as error:
            if not self._survives:
                raise
            self.log.warn(
                "{namespace}: no token for a client: {reason}; it goes on as nobody",
                namespace=namespace,
                reason=str(error),
            )
            return Exchanged(None)
        if self._survives and isinstance(outcome, Relay) and (outcome.status == 429 or outcome.status >= 500):
            return Exchanged(None)
        return outcome
