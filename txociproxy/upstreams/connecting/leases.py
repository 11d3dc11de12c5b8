"""An answer that holds a place among the open connections until its body has ended."""

from __future__ import annotations

from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer


@implementer(IResponse)
class LeasedResponse:
    """An answer that gives its slot back when its body has ended."""

    def __init__(self, response: IResponse, slots: DeferredSemaphore) -> None:
        self.version = response.version
        self.code = response.code
        self.phrase = response.phrase
        self.headers = response.headers
        self.length = response.length
        self.request = response.request
        self.previousResponse = response.previousResponse
        self._response = response
        self._slots = slots

    def deliverBody(self, protocol: IProtocol) -> None:
        """Deliver to a protocol, and know the end."""
        self._response.deliverBody(_Lease(protocol, self._slots))

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember the answer that led here."""
        self.previousResponse = response


class _Lease(Protocol):
    """Stands between a body and its protocol, for the sake of the end."""

    def __init__(self, protocol: IProtocol, slots: DeferredSemaphore) -> None:
        self._protocol = protocol
        self._slots = slots

    def connectionMade(self) -> None:
        assert self.transport is not None
        self._protocol.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._slots.release()
        self._protocol.connectionLost(reason)
