"""Bearer tokens: one ask per key, kept for their life, and the challenges that led to them (RULES C7)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from secrets import token_bytes
from typing import Literal, NamedTuple

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txociproxy.collect import KeptResponse
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import TxOCIProxyError
from txociproxy.remembering import remember

# RULES A5.
MAX_TOKENS = 10_000
MAX_CHALLENGES = 10_000


@frozen
class Wanted:
    """What a challenge asks for.

    :ivar realm: where tokens are given; its query may hold anything, so it is not printed.  Empty for Basic.
    """

    scheme: Literal["bearer", "basic"]
    realm: str = field(default="", repr=False)
    service: str | None = None


@frozen
class TokenKey:
    """What a token is for, and whose it is.

    :ivar namespace: whose connections ask for it.
    :ivar credential: a mark (:meth:`Tokens.mark`) of what was shown for it; empty for an anonymous token.
    """

    namespace: str
    realm: str = field(repr=False)
    service: str | None
    scope: str
    credential: str = ""


@frozen
class Token:
    """A token of somebody else's server.

    :ivar good_until_s: by the injected clock; somewhat before its real end.
    """

    value: str = field(repr=False)
    good_until_s: float

    @property
    def authorization(self) -> str:
        """The value of an Authorization field (RFC 6750 §2.1)."""
        return f"Bearer {self.value}"


class TokenRefused(TxOCIProxyError):
    """The token server said no.

    :ivar status: its words as a number; None says that it was not, or could not be, asked as it should be.
    :ivar response: what a client is told in place of the registry's own 401, if anything.
    """

    def __init__(self, message: str, status: int | None = None, response: KeptResponse | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.response = response


class Issued(NamedTuple):
    """A token, and whether it was made just now."""

    token: Token
    fresh: bool


class Place(NamedTuple):
    """Where a challenge was met: the upstream's URL and the repository."""

    url: str
    repository: str


Asker = Callable[[TokenKey], Awaitable[Token]]


@define(eq=False, repr=False)
class Tokens:
    """All tokens of this process; each waiter has a Deferred of its own."""

    _clock: IReactorTime
    _max_tokens: int = MAX_TOKENS
    _metrics: Metrics = field(factory=Metrics)
    _kept: OrderedDict[TokenKey, Token] = field(init=False, factory=OrderedDict)
    _learned: OrderedDict[Place, Wanted] = field(init=False, factory=OrderedDict)
    _waiting: dict[TokenKey, list[Deferred[Token]]] = field(init=False, factory=dict)
    _asks: dict[TokenKey, Deferred[Token]] = field(init=False, factory=dict)
    _marking_key: bytes = field(init=False, factory=lambda: token_bytes(32))

    @property
    def use(self) -> tuple[int, int]:
        """How many are kept, and how many may be (RULES A5)."""
        return len(self._kept), self._max_tokens

    def mark(self, authorization: str) -> str:
        """Return what stands for a credential in a key: nobody can guess it back, and it ends with the process."""
        return blake2b(authorization.encode("utf-8"), key=self._marking_key, digest_size=16).hexdigest()

    def learn(self, place: Place, wanted: Wanted) -> None:
        """Remember what a place wants, so that the next request goes with it at once."""
        remember(self._learned, place, wanted, MAX_CHALLENGES)

    def learned(self, place: Place) -> Wanted | None:
        """Return what a place wants, as far as is known."""
        return self._learned.get(place)

    def forget(self, place: Place) -> None:
        """Forget what was learned."""
        self._learned.pop(place, None)

    async def token(self, key: TokenKey, ask: Asker, rejected: Token | None = None) -> Issued:
        """Return a token that is kept, or a fresh one.

        :param rejected: the token with which a 401 came; it is not given again.
        :raises TokenRefused: the server said no.
        :raises UpstreamUnreachable: the server said nothing, or nonsense.
        """
        token = self._kept.get(key)
        if token is not None and token is not rejected and self._clock.seconds() < token.good_until_s:
            self._kept.move_to_end(key)
            self._metrics.token(key.namespace, "kept")
            return Issued(token, fresh=False)
        self._kept.pop(key, None)
        return Issued(await self._join(key, ask), fresh=True)

    def stop(self) -> None:
        """End all asks; whoever waits is told so."""
        for ask in tuple(self._asks.values()):
            ask.cancel()

    def _join(self, key: TokenKey, ask: Asker) -> Deferred[Token]:
        """Wait for the one ask for this key, beginning it if there is none.

        It goes on when a waiter leaves, the first one included: it is short, and the next pull wants it.
        """
        waiters = self._waiting.setdefault(key, [])
        waiter: Deferred[Token] = Deferred(waiters.remove)
        waiters.append(waiter)
        if len(waiters) == 1 and key not in self._asks:
            running = Deferred.fromCoroutine(_awaited(ask, key))
            self._asks[key] = running
            running.addBoth(self._settle, key)
        return waiter

    def _settle(self, result: Token | Failure, key: TokenKey) -> None:
        del self._asks[key]
        waiters = self._waiting.pop(key)
        if isinstance(result, Token) and remember(self._kept, key, result, self._max_tokens):
            self._metrics.cap_reached("tokens")
        # Whoever is called may cancel another, which then leaves the list.
        while waiters:
            waiter = waiters.pop(0)
            if isinstance(result, Token):
                waiter.callback(result)
            else:
                waiter.errback(result)


async def _awaited(ask: Asker, key: TokenKey) -> Token:
    return await ask(key)
