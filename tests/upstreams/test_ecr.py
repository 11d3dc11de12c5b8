"""ECR's logins come from a client of the AWS SDK, and nothing that it says is shown but its kind."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from txociproxy.upstreams.logins.accounts import Ecr, Login, LoginUnavailable
from txociproxy.upstreams.logins.ecr import EcrReader, check_ecr, region_of
from txociproxy.upstreams.logins.keeper import Reading

URL = "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"
NOW_S = 1_800_000_000.0
HOUR_S = 3600.0
SECRET = "s3cret-of-aws"


def data(text: str = f"AWS:{SECRET}", life_s: float = 12 * HOUR_S) -> dict[str, Any]:
    """Return an item of an answer."""
    token = base64.b64encode(text.encode()).decode()
    return {"authorizationToken": token, "expiresAt": datetime.fromtimestamp(NOW_S + life_s, UTC)}


class ClientError(Exception):
    """An error as the SDK raises it: with an answer, and a text that says too much."""

    def __init__(self, response: object) -> None:
        super().__init__(f"X-Amz-Security-Token: {SECRET}")
        self.response = response


@define(eq=False)
class Aws:
    """The SDK, as far as it is used: a factory of clients, and a client.

    :ivar asked: (region, profile) of each client.
    """

    answer: Any
    asked: list[tuple[str | None, str | None]] = field(factory=list)
    refusal: Exception | None = None

    def __call__(self, region: str | None, profile: str | None) -> Aws:
        """Make a client."""
        self.asked.append((region, profile))
        if self.refusal is not None:
            raise self.refusal
        return self

    def get_authorization_token(self) -> Any:
        """Answer, or fail."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class EcrReaderTests(SynchronousTestCase):
    """What is asked, and what becomes of the answer."""

    def read(self, aws: Aws, account: Ecr | None = None, url: str = URL) -> Deferred[Reading]:
        """Read now."""
        reader = EcrReader(account or Ecr(), url, InlineWorkers(), aws, lambda: NOW_S)
        return Deferred.fromCoroutine(reader.read())

    def refusal(self, aws: Aws) -> str:
        """Return why there is no login."""
        error = self.failureResultOf(self.read(aws), LoginUnavailable).value
        self.assertNotIn(SECRET, str(error))
        return str(error)

    def test_it_is_asked_in_a_thread(self) -> None:
        """The SDK blocks."""
        workers, aws = ManualWorkers(), Aws({"authorizationData": [data()]})
        d = Deferred.fromCoroutine(EcrReader(Ecr(), URL, workers, aws, lambda: NOW_S).read())
        self.assertEqual(aws.asked, [])
        workers.work()
        self.assertEqual(self.successResultOf(d).login, Login("AWS", SECRET))

    def test_it_is_kept_until_half_an_hour_before_its_end(self) -> None:
        """At least a minute, since nothing else could be had; never longer than twelve hours."""
        for life_s, kept_s in (
            (12 * HOUR_S, 11.5 * HOUR_S),
            (HOUR_S, 0.5 * HOUR_S),
            (0.5 * HOUR_S + 59, 60),
            (-HOUR_S, 60),
            (12.5 * HOUR_S, 12 * HOUR_S),
            (100 * HOUR_S, 12 * HOUR_S),
        ):
            d = self.read(Aws({"authorizationData": [data(life_s=life_s)]}))
            self.assertEqual(self.successResultOf(d).lifetime_s, kept_s)

    def test_the_region_is_the_host_s_unless_it_is_given(self) -> None:
        """For a name of one's own the SDK may know one."""
        for account, url, asked in (
            (Ecr(), URL, ("eu-central-1", None)),
            (Ecr("us-east-1", "work"), URL, ("us-east-1", "work")),
            (Ecr(profile="work"), "https://ecr.example.com", (None, "work")),
        ):
            aws = Aws({"authorizationData": [data()]})
            self.successResultOf(self.read(aws, account, url))
            self.assertEqual(aws.asked, [asked])

    def test_regions_of_hosts(self) -> None:
        """Private registries only; others are asked otherwise."""
        for host, region in (
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "eu-central-1"),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
            ("public.ecr.aws", None),
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example", None),
            ("x.123456789012.dkr.ecr.eu-central-1.amazonaws.com", None),
            ("dkr.ecr.eu-central-1.amazonaws.com", None),
        ):
            self.assertEqual(region_of(f"https://{host}/v2/"), region, host)

    def test_an_error_is_named_by_its_kind_and_code(self) -> None:
        """Texts of the SDK repeat what was signed, and what other programs have printed."""
        for answer, words in (
            (ClientError({"Error": {"Code": "ExpiredTokenException"}}), "ClientError, ExpiredTokenException"),
            (ClientError({"Error": {"Code": f"<{SECRET}>"}}), "ClientError"),
            (ClientError({"Error": {"Code": 7}}), "ClientError"),
            (ClientError({}), "ClientError"),
            (ClientError(None), "ClientError"),
            (OSError(SECRET), "OSError"),
        ):
            self.assertTrue(self.refusal(Aws(answer)).endswith(f"ECR: {words}"))
        self.assertTrue(self.refusal(Aws(None, refusal=KeyError(SECRET))).endswith("ECR: KeyError"))

    def test_a_missing_sdk_is_named_with_the_remedy(self) -> None:
        """It is an extra."""
        self.assertIn("pip install 'txociproxy[aws]'", self.refusal(Aws(None, refusal=ImportError("boto3"))))

    def test_an_answer_that_is_none_is_not_a_login(self) -> None:
        """Whatever it is; nothing else than LoginUnavailable comes out."""
        no_end = {**data(), "expiresAt": SECRET}
        answers: tuple[Any, ...] = (
            {},
            {"authorizationData": []},
            None,
            {"authorizationData": [{}]},
            {"authorizationData": [None]},
            {"authorizationData": [data(SECRET)]},
            {"authorizationData": [data("AWS:")]},
            {"authorizationData": [data(f":{SECRET}")]},
            {"authorizationData": [{**data(), "authorizationToken": f"~{SECRET}"}]},
            {"authorizationData": [{**data(), "authorizationToken": None}]},
            {"authorizationData": [no_end]},
        )
        for answer in answers:
            self.assertIn("ECR", self.refusal(Aws(answer)))


class CheckEcrTests(SynchronousTestCase):
    """What the check of a configuration asks."""

    def test_it_is_quiet_where_the_sdk_is(self) -> None:
        """And looks for the one package that is imported."""
        sought: list[str] = []

        def find(name: str) -> object:
            sought.append(name)
            return object()

        check_ecr(find)
        self.assertEqual(sought, ["boto3"])

    def test_it_says_how_to_get_it(self) -> None:
        """In the words of the error that would come later."""
        error = self.assertRaises(ValueError, check_ecr, lambda name: None)
        self.assertIn("pip install 'txociproxy[aws]'", str(error))
