"""The way to a bucket: the SDK's client and our signer, and what the SDK's errors mean.

Whatever the SDK knows about credentials, endpoints and trust is left to it.  Everything here blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from attrs import define

from txociproxy.oci.errors import reason_phrase
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.signing import Base, Identity, Signer
from txociproxy.storage.s3.trouble import Kind, S3Trouble

CONNECT_S = 2
READ_S = 10
CONNECTIONS = 16
REGION = "us-east-1"
_MISSING = "S3 needs the AWS SDK: pip install 'txociproxy[aws]'"
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
# Nothing more goes in, while all that is there can be read.
FULL = frozenset({"QuotaExceeded", "InsufficientCapacity", "InsufficientStorage", "XMinioStorageFull"})
_REFUSALS = frozenset(
    {
        *("AccessDenied", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidBucketName"),
        *("InvalidToken", "NoSuchBucket", "PermanentRedirect", "RequestExpired", "RequestTimeTooSkewed"),
        *("SignatureDoesNotMatch", "TemporaryRedirect", "TokenRefreshRequired", "XAdminUserNotFound"),
    }
)


class Answered(S3Trouble):
    """The server has said no.

    :ivar status: of its answer.
    """

    def __init__(self, kind: Kind, code: str, what: str, status: int) -> None:
        super().__init__(kind, code, what)
        self.status = status


@define(eq=False)
class Connection:
    """The way to one bucket.

    :ivar client: the SDK's; its methods block and may be called from many threads.
    :ivar endpoint_url: where the server is.
    :ivar ca_file: whom the SDK was told to trust; None is the system's trust.
    """

    client: Any
    signer: Signer
    endpoint_url: str
    ca_file: str | None


def connect(settings: S3Settings, make_session: Callable[[], Any] | None = None) -> Connection:
    """Make the way to a bucket; asks nothing of S3, but credentials may come from the network.

    :param make_session: makes a session of the SDK; without it the SDK looks at all its usual places.
    :raises S3Trouble: there are no credentials, or no SDK.
    """
    try:
        return _connected(settings, (make_session or _session)())
    except S3Trouble:
        raise
    except ImportError:
        raise S3Trouble("refused", "SdkMissing", _MISSING) from None
    except Exception as error:  # the SDK's own, and those of files and addresses that it cannot read
        raise trouble_of(error, f"the way to the S3 bucket {settings.bucket}") from None


def _session() -> Any:
    """Return a session of the SDK that looks at all its usual places."""
    import boto3  # it costs half a second and 15 MB

    return boto3.Session()


def _connected(settings: S3Settings, session: Any) -> Connection:
    """Make the clients of one session; sessions are not for many threads, their clients are."""
    credentials = session.get_credentials()
    if credentials is None:
        raise S3Trouble("refused", "NoCredentials", "the AWS SDK finds no keys in environment, files and roles")
    ca_file = session._session.get_config_variable("ca_bundle") or None
    client = _client(settings, session, ca_file, settings.endpoint_url)
    public = client
    if settings.public_endpoint_url is not None:
        public = _client(settings, session, ca_file, settings.public_endpoint_url)
    base, region = _reached(client, settings.bucket)
    signer = Signer(lambda: _identity(credentials), region, base, _reached(public, settings.bucket)[0])
    return Connection(client, signer, client.meta.endpoint_url, ca_file)


def _client(settings: S3Settings, session: Any, ca_file: str | None, endpoint_url: str | None) -> Any:
    """Return a client that tries once and waits for a bounded time: whoever calls it tries again, and knows when."""
    from botocore.config import Config

    config = Config(
        signature_version="s3v4",  # what is signed in another way is refused by today's servers
        s3={"addressing_style": "path" if settings.path_style else "virtual"},
        request_checksum_calculation="when_required",  # many servers that are not AWS's know no others
        response_checksum_validation="when_required",
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
    )
    region = settings.region or session.region_name or REGION

    def made(endpoint_url: str | None) -> Any:
        return session.client("s3", region, endpoint_url=endpoint_url, verify=ca_file or True, config=config)

    client = made(endpoint_url)
    where = client.meta.endpoint_url
    # The SDK sends no password that its variables and files have in an address; we would say it in every message.
    bare = _without_userinfo(where)
    return client if bare == where else made(bare)


def _without_userinfo(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _reached(client: Any, bucket: str) -> tuple[Base, str]:
    """Return where the SDK would ask for the bucket's keys, and for which region it signs.  Asks nobody.

    It is read off a URL that the SDK has signed, since the name's place in it depends on more than our settings.
    """
    where = urlsplit(client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": "x"}))
    region = parse_qs(where.query)["X-Amz-Credential"][0].split("/")[-3]
    return Base.of(f"{where.scheme}://{where.netloc}{where.path.removesuffix('/x')}"), region


def _identity(credentials: Any) -> Identity:
    """Return the keys as they are now; blocks, because the SDK renews those that end soon over the network."""
    try:
        frozen = credentials.get_frozen_credentials()
    except Exception as error:
        raise trouble_of(error, "the credentials for S3") from None
    ends_at = getattr(credentials, "_expiry_time", None)  # the SDK has no public name for it
    return Identity(
        frozen.access_key, frozen.secret_key, frozen.token or None, None if ends_at is None else ends_at.timestamp()
    )


def trouble_of(error: Exception, what: str) -> S3Trouble:
    """Say what an error of the SDK means.  Its text is left out: it may repeat what was signed, and session tokens.

    A connection that was lost in the middle is ``failing`` and not ``unreachable``: a server may close one that is
    kept open at the moment when it is used again.

    :param what: what was asked, and of whom.
    """
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _answered(error.response, what)
    lost = (exceptions.ConnectionError, exceptions.ReadTimeoutError)
    broken = (exceptions.HTTPClientError, exceptions.IncompleteReadError, exceptions.ChecksumError)
    kind: Kind = "unreachable" if isinstance(error, lost) else "failing" if isinstance(error, broken) else "refused"
    return S3Trouble(kind, type(error).__name__, what)


def _answered(response: dict[str, Any], what: str) -> Answered:
    """Say what the server's no means."""
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 500)
    code = response.get("Error", {}).get("Code")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        code = reason_phrase(status).replace(" ", "")  # the answer to a HEAD has no body that says more
    kind: Kind = "failing"
    if code in _REFUSALS or (status in (301, 307, 401, 403) and code not in FULL):
        kind = "refused"
    return Answered(kind, code, what, status)
