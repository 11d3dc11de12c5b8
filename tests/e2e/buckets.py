"""One bucket of the S3 server as its owner sees it, by the AWS SDK: what is in it, and what tests put there."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import boto3
from attrs import define, field
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.e2e.ceph import REGION, Account, Ceph
from tests.e2e.processes import wait_until

UPLOAD_S = 30
Rule = dict[str, Any]


@define(eq=False)
class Bucket:
    """A bucket that is there already."""

    name: str
    _client: Any = field(repr=False)

    # --- objects

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys that begin so, in order."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def put(self, key: str, data: bytes, media_type: str = "application/octet-stream") -> None:
        """Write an object."""
        self._client.put_object(Bucket=self.name, Key=key, Body=data, ContentType=media_type)

    def get(self, key: str) -> bytes:
        """Read an object."""
        data: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def modified(self, key: str) -> datetime.datetime:
        """Return when an object was written last, to the second."""
        when: datetime.datetime = self._client.head_object(Bucket=self.name, Key=key)["LastModified"]
        return when

    def delete(self, *keys: str) -> None:
        """Remove objects; what is not there is fine."""
        for key in keys:
            self._client.delete_object(Bucket=self.name, Key=key)

    def wait_for(self, what: str, fact: Callable[[list[str]], bool], within_s: float = UPLOAD_S) -> None:
        """Return when the keys are as they should be: uploads happen behind the clients' backs."""
        wait_until(lambda: fact(self.keys()), within_s, f"{what} in the bucket")

    # --- multipart uploads

    def begin_upload(self, key: str) -> str:
        """Begin a multipart upload, as another proxy would, and return its id."""
        identifier: str = self._client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        return identifier

    def uploads(self) -> dict[str, str]:
        """Return the keys of the multipart uploads that were begun and not ended, by their ids."""
        answer = self._client.list_multipart_uploads(Bucket=self.name)
        return {upload["UploadId"]: upload["Key"] for upload in answer.get("Uploads", ())}

    # --- rules

    def lifecycle(self) -> list[Rule]:
        """Return the lifecycle rules; none is an empty list."""
        try:
            answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.name)
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
                return []
            raise
        rules: list[Rule] = answer["Rules"]
        return rules

    def set_lifecycle(self, rules: Sequence[Rule]) -> None:
        """Write the lifecycle rules, in place of all that were there."""
        self._client.put_bucket_lifecycle_configuration(Bucket=self.name, LifecycleConfiguration={"Rules": list(rules)})


def expiration(name: str, prefix: str, days: int) -> Rule:
    """Return a rule that lets go of what begins with the prefix."""
    return {"ID": name, "Status": "Enabled", "Filter": {"Prefix": prefix}, "Expiration": {"Days": days}}


def connect(url: str, account: Account) -> Any:
    """Return the SDK's client for a server on loopback."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
    )
    return boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=account.access_key,
        aws_secret_access_key=account.secret_key,
        config=config,
    )


def fresh_name() -> str:
    """Return a name that no bucket has yet."""
    return f"e2e-{secrets.token_hex(6)}"


def bucket_of(ceph: Ceph, name: str) -> Bucket:
    """Return a bucket by its name, made or not."""
    return Bucket(name, connect(ceph.url, ceph.account))


def make_bucket(ceph: Ceph) -> Bucket:
    """Make an empty bucket for one test."""
    bucket = bucket_of(ceph, fresh_name())
    bucket._client.create_bucket(Bucket=bucket.name)
    return bucket
