"""The way to a bucket: what is left to the SDK, what is not, and what its errors mean."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import Any

from attrs import define, evolve, field
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.s3.between import refusal
from tests.storage.s3.server import fresh, make_session
from txociproxy.storage.s3.bucket import Bucket
from txociproxy.storage.s3.connecting import Answered, connect, trouble_of
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble

ELSEWHERE = S3Settings(bucket="oci-cache", endpoint_url="https://s3.test:9000")
NOW_S = 1_800_000_000.0


def url_of(settings: S3Settings, session: Any = None, public: bool = False) -> str:
    """Return a signed URL of a connection, without its query."""
    connection = connect(settings, lambda: session or make_session())
    return connection.signer.presign("GET", "blobs/x", 60, NOW_S, public)[0].partition("?")[0]


class ConnectTests(SynchronousTestCase):
    """What is made of the settings."""

    def test_the_name_of_the_bucket_is_in_the_path(self) -> None:
        """As stores want it that have one name only."""
        self.assertEqual(url_of(ELSEWHERE), "https://s3.test:9000/oci-cache/blobs/x")

    def test_the_name_of_the_bucket_is_in_the_host(self) -> None:
        """As AWS wants it of new buckets."""
        settings = evolve(ELSEWHERE, path_style=False)
        self.assertEqual(url_of(settings), "https://oci-cache.s3.test:9000/blobs/x")

    def test_without_an_endpoint_it_is_aws(self) -> None:
        """In the region that was named, which is also signed."""
        settings = S3Settings(bucket="oci-cache", region="eu-central-1", path_style=False)
        self.assertEqual(url_of(settings), "https://oci-cache.s3.eu-central-1.amazonaws.com/blobs/x")
        url, _ = connect(settings, make_session).signer.presign("GET", "k", 60, NOW_S)
        self.assertIn("%2Feu-central-1%2Fs3%2F", url)

    def test_clients_are_sent_to_the_public_endpoint(self) -> None:
        """While we stay with the other one, in the same style."""
        settings = evolve(ELSEWHERE, public_endpoint_url="https://cdn.test", path_style=False)
        self.assertEqual(url_of(settings, public=True), "https://oci-cache.cdn.test/blobs/x")
        self.assertEqual(url_of(settings), "https://oci-cache.s3.test:9000/blobs/x")
        self.assertEqual(url_of(ELSEWHERE, public=True), url_of(ELSEWHERE))

    def test_the_region_is_ours_or_the_sdks_or_the_first(self) -> None:
        """In this order."""
        session = make_session()
        self.assertEqual(connect(ELSEWHERE, lambda: session).client.meta.region_name, "us-east-1")
        session._session.set_config_variable("region", "garage")
        self.assertEqual(connect(ELSEWHERE, lambda: session).client.meta.region_name, "garage")
        settings = evolve(ELSEWHERE, region="eu-west-1")
        self.assertEqual(connect(settings, lambda: session).client.meta.region_name, "eu-west-1")

    def test_trust_is_what_the_sdk_was_told(self) -> None:
        """The reads, which do not go through the SDK, have to trust the same."""
        self.assertEqual(connect(ELSEWHERE, make_session).ca_file, None)
        session = make_session()
        session._session.set_config_variable("ca_bundle", "/etc/own-ca.pem")
        connection = connect(ELSEWHERE, lambda: session)
        self.assertEqual((connection.ca_file, connection.endpoint_url), ("/etc/own-ca.pem", "https://s3.test:9000"))

    def test_a_password_in_the_address_that_the_sdk_found_is_said_nowhere(self) -> None:
        """It may stand in its variables and files, and the SDK sends it to nobody either."""
        settings = evolve(ELSEWHERE, endpoint_url="https://user:hunter2@s3.test:9000")
        connection = connect(settings, make_session)
        self.assertEqual(connection.endpoint_url, "https://s3.test:9000")
        self.assertEqual(connection.client.meta.endpoint_url, "https://s3.test:9000")
        self.assertEqual(url_of(settings), "https://s3.test:9000/oci-cache/blobs/x")

    def test_the_client_waits_for_a_bounded_time_and_tries_once(self) -> None:
        """Whoever calls tries again; checksums are not sent to servers that know none."""
        config = connect(ELSEWHERE, make_session).client.meta.config
        self.assertEqual((config.connect_timeout, config.read_timeout), (2, 10))
        self.assertEqual(config.retries["total_max_attempts"], 1)
        self.assertEqual((config.signature_version, config.max_pool_connections), ("s3v4", 16))
        checksums = (config.request_checksum_calculation, config.response_checksum_validation)
        self.assertEqual(checksums, ("when_required", "when_required"))

    def test_an_answer_of_5xx_is_not_asked_for_again(self) -> None:
        """Not by the SDK."""
        here = fresh()
        sent: list[object] = []

        def failed(request: object, **_: object) -> Any:
            from botocore.awsrequest import AWSResponse

            sent.append(request)
            return AWSResponse("http://s3.test", 503, {}, Empty())

        here.client.meta.events.register("before-send.s3.HeadObject", failed)
        self.assertRaises(S3Trouble, here.bucket.head, "k")
        self.assertEqual(len(sent), 1)


class Empty:
    """A body without bytes."""

    def stream(self, *_: object) -> list[bytes]:
        """Give nothing."""
        return []

    def read(self, *_: object) -> bytes:
        """Give nothing."""
        return b""


class NoWayTests(SynchronousTestCase):
    """What ends before anything was asked."""

    def trouble(self, settings: S3Settings, make: Any) -> S3Trouble:
        """Return what is raised."""
        found = self.assertRaises(S3Trouble, connect, settings, make)
        assert isinstance(found, S3Trouble)
        return found

    def test_without_credentials_it_is_refused(self) -> None:
        """The SDK has looked everywhere."""
        found = self.trouble(ELSEWHERE, lambda: make_session(None))
        self.assertEqual((found.kind, found.code), ("refused", "NoCredentials"))

    def test_without_the_sdk_it_says_what_to_install(self) -> None:
        """It is an extra."""

        def missing() -> Any:
            raise ImportError("boto3")

        found = self.trouble(ELSEWHERE, missing)
        self.assertEqual((found.kind, found.code), ("refused", "SdkMissing"))
        self.assertIn("pip install 'txociproxy[aws]'", str(found))

    def test_a_profile_that_is_not_there_is_refused(self) -> None:
        """The error is the SDK's."""

        def absent() -> Any:
            import boto3

            return boto3.Session(botocore_session=make_session()._session, profile_name="absent")

        self.assertEqual(self.trouble(ELSEWHERE, absent).kind, "refused")

    def test_an_endpoint_that_is_none_is_refused(self) -> None:
        """The SDK does not even begin."""
        found = self.trouble(evolve(ELSEWHERE, endpoint_url="s3 test"), make_session)
        self.assertEqual((found.kind, found.code), ("refused", "ValueError"))


@define(eq=False)
class Renewing:
    """Credentials of a session, which the SDK renews; the test says what time it is.

    :ivar renewals: what is given, one after the other; an error ends it.
    """

    now_s: float = NOW_S
    renewals: list[Any] = field(factory=list)

    def credentials(self, life_s: float) -> Any:
        """Make credentials that are good for a while."""
        from botocore.credentials import RefreshableCredentials

        return RefreshableCredentials(
            "ASIA0", "S", "token-0", self.at(life_s), self.renew, "test", time_fetcher=lambda: self.at(0)
        )

    def at(self, after_s: float) -> datetime:
        """Return a time from now."""
        return datetime.fromtimestamp(self.now_s, UTC) + timedelta(seconds=after_s)

    def renew(self) -> dict[str, str]:
        """Give the next."""
        found = self.renewals.pop(0)
        if isinstance(found, Exception):
            raise found
        ends = self.at(3600).isoformat()
        return {"access_key": found, "secret_key": "S", "token": "token-1", "expiry_time": ends}

    def session(self, life_s: float) -> Any:
        """Make a session that has them."""
        session = make_session(None)
        session._session._credentials = self.credentials(life_s)
        return session


class RenewalTests(SynchronousTestCase):
    """Credentials that end."""

    def test_a_url_ends_with_them(self) -> None:
        """Though a longer life was asked for."""
        renewing = Renewing()
        signer = connect(ELSEWHERE, lambda: renewing.session(3000)).signer
        url, life_s = signer.presign("GET", "k", 5000, NOW_S)
        self.assertEqual(life_s, 3000)
        self.assertIn("X-Amz-Security-Token=token-0", url)

    def test_only_a_refresh_renews_them(self) -> None:
        """Because that may go over the network."""
        renewing = Renewing(renewals=["ASIA1"])
        signer = connect(ELSEWHERE, lambda: renewing.session(3000)).signer
        renewing.now_s += 2900
        self.assertIn("ASIA0", signer.presign("GET", "k", 60, renewing.now_s)[0])
        signer.refresh()
        url, life_s = signer.presign("GET", "k", 5000, renewing.now_s)
        self.assertIn("ASIA1", url)
        self.assertEqual(life_s, 3600)

    def test_a_renewal_that_fails_is_refused_in_our_words(self) -> None:
        """The SDK's own may hold what it was sent."""
        renewing = Renewing(renewals=[RuntimeError("token-of-somebody")])
        signer = connect(ELSEWHERE, lambda: renewing.session(3000)).signer
        renewing.now_s += 2999
        found = self.assertRaises(S3Trouble, signer.refresh)
        assert isinstance(found, S3Trouble)
        self.assertEqual((found.kind, found.code), ("refused", "RuntimeError"))
        self.assertNotIn("token-of-somebody", str(found))


class TroubleTests(SynchronousTestCase):
    """What errors mean."""

    def kind(self, error: Exception) -> tuple[str, str]:
        """Return kind and code."""
        found = trouble_of(error, "a try")
        return found.kind, found.code

    def test_what_the_server_will_say_again_is_refused(self) -> None:
        """Until somebody changes credentials, rights, the bucket or the clock."""
        for status, code in (
            *(
                (403, "AccessDenied"),
                (403, "InvalidAccessKeyId"),
                (403, "SignatureDoesNotMatch"),
                (404, "NoSuchBucket"),
            ),
            *((403, "RequestTimeTooSkewed"), (400, "ExpiredToken"), (401, "Unauthorized"), (403, "SomethingNew")),
            *((301, "PermanentRedirect"), (404, "XAdminUserNotFound")),
        ):
            self.assertEqual(self.kind(refusal(status, code)), ("refused", code))

    def test_what_may_be_well_the_next_time_is_failing(self) -> None:
        """A full bucket too: what is in it can still be read."""
        for status, code in (
            *((503, "SlowDown"), (429, "TooManyRequests"), (500, "InternalError"), (404, "NoSuchKey")),
            *((403, "QuotaExceeded"), (507, "XMinioStorageFull"), (400, "RequestTimeout"), (200, "InternalError")),
        ):
            self.assertEqual(self.kind(refusal(status, code)), ("failing", code))

    def test_an_answer_to_head_has_a_name_too(self) -> None:
        """It has no body with a code; nor is any text believed to be one."""
        self.assertEqual(self.kind(refusal(403)), ("refused", "Forbidden"))
        self.assertEqual(self.kind(refusal(503)), ("failing", "ServiceUnavailable"))
        self.assertEqual(self.kind(refusal(500, "<a code>\n")), ("failing", "InternalServerError"))

    def test_what_gives_no_answer_is_unreachable(self) -> None:
        """Refused connections, time-outs, TLS and names alike."""
        from botocore import exceptions

        where: dict[str, Any] = {"endpoint_url": "http://s3.test", "error": "secret"}
        for make in (
            *(exceptions.EndpointConnectionError, exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError),
            *(exceptions.SSLError, exceptions.ProxyConnectionError),
        ):
            error = make(proxy_url="http://proxy.test", **where)
            self.assertEqual(self.kind(error), ("unreachable", make.__name__))

    def test_a_connection_that_breaks_is_only_failing(self) -> None:
        """One that was kept open may be closed by the server at any time; that is no outage."""
        from botocore import exceptions

        closed = exceptions.ConnectionClosedError(endpoint_url="http://s3.test", error="x", request=None)
        self.assertEqual(self.kind(closed), ("failing", "ConnectionClosedError"))
        short = exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2)
        self.assertEqual(self.kind(short), ("failing", "IncompleteReadError"))

    def test_the_servers_text_is_not_repeated(self) -> None:
        """It quotes what was signed, with the key's name and the token."""
        found = trouble_of(refusal(403, "SignatureDoesNotMatch", "AKID and host;x-amz-security-token"), "a try")
        self.assertEqual(str(found), "a try: SignatureDoesNotMatch")

    def test_an_answer_keeps_its_status(self) -> None:
        """Whoever asked knows what it means."""
        found = trouble_of(refusal(412, "PreconditionFailed"), "a try")
        assert isinstance(found, Answered)
        self.assertEqual(found.status, 412)

    def test_a_port_where_nobody_listens_is_unreachable(self) -> None:
        """The text names bucket and endpoint, and what was asked."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            settings = S3Settings(bucket="oci-cache", endpoint_url=url)
            bucket = Bucket(connect(settings, make_session).client, "oci-cache")
            found = self.assertRaises(S3Trouble, bucket.head, "k")
        assert isinstance(found, S3Trouble)
        self.assertEqual((found.kind, found.code), ("unreachable", "EndpointConnectionError"))
        self.assertIn(f"head_object for the S3 bucket oci-cache at {url}", str(found))
