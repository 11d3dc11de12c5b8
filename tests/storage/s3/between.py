"""A double of the SDK's client that stands between a bucket and its server: it sees every request, and may answer."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, cast

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.server import Fresh, fresh
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.trouble import S3Trouble

# (the real method, what it was called with) → the answer
Says = Callable[[Callable[..., Any], dict[str, Any]], Any]


@define(eq=False)
class Between:
    """Hands everything on, unless the test says otherwise.

    :ivar says: by operation: what answers in place of the server.
    :ivar asked: the operations, in order, with what they were called with.
    """

    _client: Any
    says: dict[str, Says] = field(factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(factory=list)

    @property
    def meta(self) -> Any:
        """What the real client says of itself."""
        return self._client.meta

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        real = getattr(self._client, operation)

        def ask(**parameters: Any) -> Any:
            self.asked.append((operation, parameters))
            answer = self.says.get(operation)
            return real(**parameters) if answer is None else answer(real, parameters)

        return ask

    @property
    def operations(self) -> list[str]:
        """The operations, in order."""
        return [operation for operation, _ in self.asked]

    def parameters(self, operation: str) -> list[dict[str, Any]]:
        """Return what an operation was called with, each time."""
        return [parameters for name, parameters in self.asked if name == operation]


def refusal(status: int, code: str | None = None, message: str = "said by the server") -> Exception:
    """Make the error that the SDK raises for a server's no; without a code it is as after a HEAD."""
    from botocore.exceptions import ClientError

    said = {"Code": str(status) if code is None else code, "Message": message}
    error: Exception = ClientError({"Error": said, "ResponseMetadata": {"HTTPStatusCode": status}}, "AnyOperation")
    return error


def refuse(status: int, code: str | None = None, *, only_if: str | None = None, times: int = 10**6) -> Says:
    """Let the server say no.

    :param only_if: only to requests with this parameter.
    :param times: so many times; after that the server itself is asked.
    """
    left = [times]

    def say(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
        if left[0] and (only_if is None or only_if in parameters):
            left[0] -= 1
            raise refusal(status, code)
        return real(**parameters)

    return say


class BucketTestCase(SynchronousTestCase):
    """A bucket with somebody between it and its server."""

    def setUp(self) -> None:
        """Make a bucket."""
        self.here: Fresh = fresh()
        self.between = Between(self.here.client)
        self.bucket = Bucket(self.between, self.here.settings.bucket)

    def trouble(self, function: Callable[..., object], *args: Any) -> S3Trouble:
        """Return what a call raises."""
        return cast(S3Trouble, self.assertRaises(S3Trouble, function, *args))

    def later(self, after_s: float, operation: str) -> None:
        """Let the server's clock go on before it answers."""

        def say(real: Callable[..., Any], parameters: dict[str, Any]) -> Any:
            answer = real(**parameters)
            header = answer["ResponseMetadata"]["HTTPHeaders"]
            header["date"] = format_datetime(parsedate_to_datetime(header["date"]) + timedelta(seconds=after_s))
            return answer

        self.between.says[operation] = say
