"""Addresses: where a client gets an object itself, signed once a minute for all clients."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txociproxy.interfaces import Address
from txociproxy.remembering import remember
from txociproxy.storage.s3.signing import Signer
from txociproxy.storage.s3.trouble import S3Trouble

MAX_ADDRESSES = 10_000
SHARED_S = 60.0


@define(eq=False)
class Addresses:
    """Signed URLs by the key that they are for.

    :ivar _life_s: how long one is good when it is new; one that is half over is not handed out any more.
    :ivar _signed: when each was signed, by the clock.
    """

    _signer: Signer
    _clock: IReactorTime
    _now: Callable[[], float]
    _life_s: float
    _signed: OrderedDict[str, tuple[Address, float]] = field(init=False, factory=OrderedDict, repr=False)

    def of(self, key: str) -> Address:
        """Return the address of an object, whether it exists or not.

        :raises S3Trouble: our credentials have ended.
        """
        address, signed_s = self._signed.get(key, (None, 0.0))
        age_s = self._clock.seconds() - signed_s
        if address is not None and 0 <= age_s < min(SHARED_S, address.expires_s / 2):
            return Address(address.url, address.expires_s - age_s)
        return self._sign(key)

    def forget(self) -> None:
        """Sign anew from now on."""
        self._signed.clear()

    def _sign(self, key: str) -> Address:
        url, life_s = self._signer.presign("GET", key, self._life_s, self._now(), public=True)
        if life_s <= 0:
            raise S3Trouble("refused", "ExpiredToken", f"an address of {key}")
        address = Address(url, life_s)
        remember(self._signed, key, (address, self._clock.seconds()), MAX_ADDRESSES)
        return address
