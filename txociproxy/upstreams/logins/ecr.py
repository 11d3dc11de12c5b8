"""Logins for Amazon ECR: GetAuthorizationToken, with whatever identity the AWS SDK finds in its usual places.

The SDK blocks, and is imported only when the first login is asked for.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from attrs import define

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.logins.accounts import Ecr, Login, LoginUnavailable
from txociproxy.upstreams.logins.keeper import Reader, Reading, in_thread
from txociproxy.upstreams.origins import Origin

# A token lives for twelve hours; it is renewed this long before its end, so that no pull begins with its last minute.
AHEAD_S = 30 * 60.0
LEAST_S = 60.0
MOST_S = 12 * 3600.0
CONNECT_S = 5
READ_S = 5
RETRIES = 2
_MISSING = "logins for ECR need the AWS SDK: pip install 'txociproxy[aws]'"
_HOST = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")

# (region, profile) → a client of the SDK.
ClientFactory = Callable[[str | None, str | None], Any]


def check_ecr(find: Callable[[str], object | None] = find_spec) -> None:
    """Say whether the AWS SDK is installed, without importing it.

    :raises ValueError: it is not; the text says how to get it.
    """
    if find("boto3") is None:
        raise ValueError(_MISSING)


def region_of(url: str) -> str | None:
    """Return the region in the name of a private ECR registry; None if the host is called otherwise."""
    match = _HOST.fullmatch(Origin.of(url).host)
    return None if match is None else match[1]


def make_client(region: str | None, profile: str | None) -> Any:
    """Return a client of the SDK with bounded waits; a session of its own, since sessions are not for many threads."""
    import boto3  # it costs half a second and 15 MB
    from botocore.config import Config

    config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"max_attempts": RETRIES})
    return boto3.Session(profile_name=profile, region_name=region).client("ecr", config=config)


@define(eq=False)
class EcrReader(Reader):
    """Asks AWS for each reading.

    :ivar _now: seconds since the epoch, in which AWS tells the token's end.
    """

    _account: Ecr
    _url: str
    _workers: IWorkers
    _make_client: ClientFactory = make_client
    _now: Callable[[], float] = time.time

    async def read(self) -> Reading:
        """See :meth:`Reader.read`."""
        return await in_thread(self._workers, self._ask)

    def _ask(self) -> Reading:
        """Ask AWS; blocks."""
        region = self._account.region or region_of(self._url)
        try:
            client = self._make_client(region, self._account.profile)
            data = client.get_authorization_token()["authorizationData"][0]
        except ImportError:
            raise LoginUnavailable(_MISSING) from None
        except Exception as error:  # the SDK's own, which cannot be named without importing it
            raise LoginUnavailable(f"AWS gave no login for ECR: {_what(error)}") from None
        try:
            return self._reading(data)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise LoginUnavailable("AWS gave a login for ECR that is none") from None

    def _reading(self, data: dict[str, Any]) -> Reading:
        """Return the login of an answer, and how long it is good.

        :raises ValueError: it is not the base64 of user:password.
        """
        username, colon, password = base64.b64decode(data["authorizationToken"], validate=True).decode().partition(":")
        if not colon or not username or not password:
            raise ValueError("not a login")
        left_s = data["expiresAt"].timestamp() - self._now() - AHEAD_S
        return Reading(Login(username, password), min(max(left_s, LEAST_S), MOST_S))


def _what(error: Exception) -> str:
    """Return the kind of an error of the SDK, and AWS's code; their texts may repeat signatures and session tokens."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return type(error).__name__ + (f", {code[:64]}" if isinstance(code, str) and code.isalnum() else "")
