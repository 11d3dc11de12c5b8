"""A bucket of its own for each test, on an S3 server in this process, and an agent that asks it without a reactor.

The server is moto's.  It proves no signatures, no expiry and no rights: those are shown by end-to-end tests alone.
"""

from __future__ import annotations

import http.client
import logging
import os
import secrets
from datetime import timedelta
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from tests.doubles import FakeResponse
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.connecting import Connection, connect
from txociproxy.storage.s3.keys import Keys
from txociproxy.storage.s3.settings import S3Settings

ACCESS_KEY = "AKIDOFTESTS"
SECRET_KEY = "secret-of-tests"
PATIENCE_S = 10.0


@cache
def server_url() -> str:
    """Start the server at the first call; its threads are daemons and end with the process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it prints a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def make_session(access_key: str | None = ACCESS_KEY, secret_key: str = SECRET_KEY, token: str | None = None) -> Any:
    """Make a session of the SDK that reads neither the environment nor anybody's files, and asks no outbound proxy.

    :param access_key: None makes one that has no credentials at all.
    """
    import boto3
    from botocore.config import Config
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES as variables
    from botocore.credentials import CredentialResolver
    from botocore.session import Session

    files = {"config_file": os.devnull, "credentials_file": os.devnull}
    blind = {name: (said, None, files.get(name, default), to) for name, (said, _, default, to) in variables.items()}
    inner = Session(session_vars=blind)
    inner.register_component("data_loader", _data())
    inner.register_component("credential_provider", CredentialResolver([]))
    inner.set_default_client_config(Config(proxies={}))
    if access_key is not None:
        inner.set_credentials(access_key, secret_key, token)
    return boto3.Session(botocore_session=inner)


@cache
def _data() -> Any:
    """Return what the SDK knows about services; to read it again for each session takes a tenth of a second."""
    from botocore.loaders import create_loader

    return create_loader()


@define(eq=False)
class Fresh:
    """A bucket that no other test knows, with all that leads to it.

    :ivar client: the SDK's own, to look at the bucket from outside.
    """

    settings: S3Settings
    connection: Connection
    bucket: Bucket
    keys: Keys
    agent: BlockingAgent

    @property
    def client(self) -> Any:
        """The SDK's client."""
        return self.connection.client

    def names(self) -> list[str]:
        """Return all keys of the bucket, in order."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket)
        return [found["Key"] for page in pages for found in page.get("Contents", ())]

    def content(self, key: str) -> bytes:
        """Return what lies under a key; KeyError if nothing does."""
        if key not in self.names():
            raise KeyError(key)
        body = self.client.get_object(Bucket=self.settings.bucket, Key=key)["Body"]
        try:
            data = body.read()
        finally:
            body.close()
        assert isinstance(data, bytes)
        return data

    def plant(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        """Put an object behind the back of what is tested."""
        self.client.put_object(Bucket=self.settings.bucket, Key=key, Body=data, ContentType=media_type)

    def make_old(self, key: str, age_s: float) -> None:
        """Let an object have been written so long ago."""
        from moto.core.models import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        found = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[self.settings.bucket].keys[key]
        found.last_modified -= timedelta(seconds=age_s)

    def uploads(self) -> list[str]:
        """Return the keys of all multipart uploads that are neither completed nor aborted."""
        found = self.client.list_multipart_uploads(Bucket=self.settings.bucket)
        return [upload["Key"] for upload in found.get("Uploads", ())]


def fresh(settings: S3Settings | None = None, is_made: bool = True) -> Fresh:
    """Make a new bucket, and the way to it.

    :param settings: its bucket and endpoint are replaced.
    :param is_made: False leaves it to the test to make the bucket.
    """
    name = f"test-{secrets.token_hex(8)}"
    settings = evolve(settings or S3Settings(), bucket=name, endpoint_url=server_url())
    connection = connect(settings, make_session)
    if is_made:
        connection.client.create_bucket(Bucket=name)
    bucket = Bucket(connection.client, name)
    return Fresh(settings, connection, bucket, Keys(settings.prefix), BlockingAgent())


@define(frozen=True)
class Asked:
    """One request that went through the agent."""

    method: str
    url: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The path, without what was signed."""
        return urlsplit(self.url).path


@implementer(IAgent)
@define(eq=False)
class BlockingAgent:
    """Asks at once, and has the whole answer when it returns; like the real one it tells no length for HEAD.

    :ivar asked: all requests, in order.
    :ivar trouble: what every request fails with from now on; None asks the server.
    """

    asked: list[Asked] = field(factory=list)
    trouble: Exception | None = None

    def request(
        self, method: bytes, uri: bytes, headers: Headers | None = None, bodyProducer: IBodyProducer | None = None
    ) -> Deferred[IResponse]:
        """Ask now.  Nobody sends a body through it."""
        assert bodyProducer is None
        sent = {name.decode(): values[-1].decode() for name, values in (headers or Headers()).getAllRawHeaders()}
        self.asked.append(Asked(method.decode(), uri.decode(), sent))
        if self.trouble is not None:
            return fail(self.trouble)
        try:
            return succeed(_answer(self.asked[-1]))
        except OSError as error:
            return fail(ConnectionRefusedError(str(error)))
        except http.client.HTTPException as error:
            return fail(ResponseNeverReceived([error]))

    def count(self, method: str, key: str = "") -> int:
        """Return how many requests were for keys that end like this."""
        return sum(one.method == method and one.path.endswith(key) for one in self.asked)


def _answer(asked: Asked) -> FakeResponse:
    """Send one request over a connection of its own, and read the whole answer."""
    where = urlsplit(asked.url)
    assert where.hostname == "127.0.0.1", "no network but loopback"
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=PATIENCE_S)
    try:
        connection.request(asked.method, f"{where.path}?{where.query}", headers=asked.headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    said = answer.getheader("Content-Length")
    length: Any = 0 if asked.method == "HEAD" else UNKNOWN_LENGTH if said is None else int(said)
    return FakeResponse(answer.status, dict(answer.getheaders()), body, length)
