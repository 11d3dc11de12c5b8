"""Signer and agent of whichever connection is in use, so that what reads need not know when it is replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, cast

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from txociproxy.storage.s3.connecting import Connection
from txociproxy.storage.s3.opening import Opening
from txociproxy.storage.s3.signing import Signer
from txociproxy.storage.s3.trouble import S3Trouble


@define(eq=False)
class CurrentSigner:
    """Signs as the connection in use does; see :class:`Signer`."""

    _opening: Opening

    def presign(
        self, method: Literal["GET", "HEAD"], key: str, life_s: float, now_s: float, public: bool = False
    ) -> tuple[str, float]:
        """See :meth:`Signer.presign`.

        :raises S3Trouble: there is no connection.
        """
        return _connection(self._opening).signer.presign(method, key, life_s, now_s, public)

    def refresh(self) -> None:
        """See :meth:`Signer.refresh`."""
        if self._opening.connection is not None:
            self._opening.connection.signer.refresh()

    @property
    def count(self) -> int:
        """How many URLs were signed since the connection was made."""
        return 0 if self._opening.connection is None else self._opening.connection.signer.count

    def as_signer(self) -> Signer:
        """Return this as what it stands for."""
        return cast(Signer, self)


@implementer(IAgent)
@define(eq=False)
class CurrentAgent:
    """Sends to the server of the connection in use.

    :ivar _agent_for: makes the agent for an endpoint's URL and the file of its authorities; called in the reactor.
    """

    _opening: Opening
    _agent_for: Callable[[str, str | None], IAgent]
    _agents: dict[tuple[str, str | None], IAgent] = field(factory=dict, init=False)

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """See :meth:`IAgent.request`."""
        try:
            connection = _connection(self._opening)
        except S3Trouble:
            return fail()
        where = connection.endpoint_url, connection.ca_file
        agent = self._agents.get(where)
        if agent is None:
            agent = self._agent_for(*where)
            self._agents = {where: agent}
        return agent.request(method, uri, headers, bodyProducer)


def _connection(opening: Opening) -> Connection:
    if opening.connection is None:
        raise S3Trouble("unreachable", "NotOpened", opening.place)
    return opening.connection
