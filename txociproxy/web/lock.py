"""The lock of the doors: who has no password does not get in (RULES C6)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable
from hashlib import blake2b
from ipaddress import IPv4Address, IPv6Network, ip_address
from secrets import token_bytes
from typing import Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request

from txociproxy.flights import Flights, Landed
from txociproxy.interfaces import IWorkers
from txociproxy.metrics import Metrics
from txociproxy.oci.errors import OCIError
from txociproxy.oci.requests import Page, Target
from txociproxy.remembering import remember
from txociproxy.web.authorization import authorization_of, decoded, parted
from txociproxy.web.failures import Failures
from txociproxy.web.passwords import UserFile
from txociproxy.web.replies import LoginWanted

KEPT_S: Final = 60.0
MAX_KEPT: Final = 10_000
MAX_CHECKS: Final = 64
FAILURES_PER_USER: Final = 10
FAILURES_PER_CLIENT: Final = 60
T = TypeVar("T")


@define(eq=False)
class Lock:
    """Checks passwords, each once a minute: a check is made to be slow.

    What was checked is kept as a mark that nobody can guess back, and that ends with the process.

    :ivar _workers: a pool of its own, since guesses must take no thread of a pull's.
    """

    _clock: IReactorTime
    _file: UserFile
    _workers: IWorkers
    _metrics: Metrics = field(factory=Metrics)
    _good_until_s: OrderedDict[bytes, float] = field(factory=OrderedDict, init=False)
    _checks: Flights[bool, None] = field(factory=Flights, init=False)
    _running: int = field(default=0, init=False)
    _users: Failures = field(init=False)
    _clients: Failures = field(init=False)
    _key: bytes = field(factory=lambda: token_bytes(32), init=False, repr=False)

    log = Logger()

    def __attrs_post_init__(self) -> None:
        self._users = Failures(self._clock, FAILURES_PER_USER)
        self._clients = Failures(self._clock, FAILURES_PER_CLIENT)

    def forget(self) -> None:
        """Check everybody again, as after a change of the file that must count now; also who is being checked."""
        self._good_until_s.clear()
        self._key = token_bytes(32)

    async def check(self, request: Request, target: Target, client: str) -> None:
        """Let a request pass.

        :param client: its address; ``-`` for a Unix socket.
        :raises LoginWanted: it does not show a password that is good.
        :raises OCIError: too many wrong ones came from there lately, or too many are being checked.
        """
        if isinstance(target, Page) and target.name != "metrics":
            return  # whoever asks whether we live has no password
        shown = _basic_of(request)
        if shown is None:
            raise LoginWanted
        mark = blake2b(shown, key=self._key, digest_size=32).digest()
        if self._good_until_s.get(mark, 0.0) > self._clock.seconds():
            return
        if not await self._is_good(mark, shown, client):
            raise LoginWanted

    async def _is_good(self, mark: bytes, shown: bytes, client: str) -> bool:
        """Check one; whoever shows the same meanwhile waits for the same check."""
        client = counted_as(client)
        user = f"{client} {shown.partition(b':')[0].hex()[:512]}"
        self._may_guess(user, client)
        outcome, _ = await self._checks.join(mark, lambda: self._checked(mark, shown, user, client))
        return isinstance(outcome, Landed) and outcome.value

    def _may_guess(self, user: str, client: str) -> None:
        """Let those pass who were not wrong too often; behind a Unix socket there may be anybody.

        :raises OCIError: they were.
        """
        if client != "-":
            self._users.check(user)
            self._clients.check(client)

    async def _checked(self, mark: bytes, shown: bytes, user: str, client: str) -> Landed[bool]:
        """Check in a thread; who leaves meanwhile is counted all the same."""
        if self._running >= MAX_CHECKS:
            retry = (("Retry-After", "1"),)
            raise OCIError("TOOMANYREQUESTS", "too many passwords are being checked", status=503, headers=retry)
        self._running += 1
        answer: Deferred[Landed[bool]] = Deferred()
        checking = Deferred.fromCoroutine(_awaited(self._workers.run(_check, self._file, shown)))
        checking.addBoth(self._ended).addCallback(self._judged, mark, user, client).addBoth(answer.callback)
        return await answer

    def _ended(self, result: T) -> T:
        self._running -= 1
        return result

    def _judged(self, found: tuple[bool, str | None], mark: bytes, user: str, client: str) -> Landed[bool]:
        """Keep what is good, and remember who was wrong.

        :raises OCIError: guesses that were made side by side learn no more than the same one after another.
        """
        good, trouble = found
        if trouble is not None:
            self.log.error("htpasswd_file: {reason}; who was let in before still is", reason=trouble)
        self._metrics.door_logins.labels("good" if good else "wrong").inc()
        if good:
            self._may_guess(user, client)
            remember(self._good_until_s, mark, self._clock.seconds() + KEPT_S, MAX_KEPT)
        elif client != "-":
            self._users.count(user)
            self._clients.count(client)
        return Landed(good)


def counted_as(client: str) -> str:
    """Return whose failures are counted together: who has an address of IPv6 has its whole network (RFC 6177)."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if isinstance(address, IPv4Address) or address.is_link_local:
        return client
    return str(IPv6Network((int(address) >> 64 << 64, 64)))


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _check(file: UserFile, shown: bytes) -> tuple[bool, str | None]:
    """Check in a thread; says too what is wrong with the file, if it is news."""
    users, trouble = file.look()
    name, _, password = shown.partition(b":")
    return users is not None and users.knows(name, password), trouble


def _basic_of(request: Request) -> bytes | None:
    """Return ``name:password`` as the client shows it, None for anything else (RFC 7617, section 2).

    :raises OCIError: two Authorization fields.
    """
    authorization = authorization_of(request)
    scheme, value = parted(authorization or "")
    shown = decoded(value) if scheme == "basic" else None
    return shown if shown is not None and b":" in shown and len(shown) <= 4096 else None
