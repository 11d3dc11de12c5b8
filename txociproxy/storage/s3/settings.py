"""What is configured about a bucket."""

from __future__ import annotations

from attrs import frozen


@frozen
class S3Settings:
    """Where the bucket is, and how it is used.

    :ivar prefix: before every key, without slashes at its ends; empty is the whole bucket.
    :ivar path_style: whether the bucket's name stands in the path of URLs, and not in their host.
    :ivar lifecycle_days: after how many days the bucket lets content go that nobody has asked for; 0 is never.
    :ivar endpoint_url: None leaves it to the AWS SDK (``AWS_ENDPOINT_URL``, its files, else AWS itself).
    :ivar region: None leaves it to the AWS SDK.
    :ivar public_endpoint_url: under which clients reach the same bucket; None is the same.
    :ivar url_life_s: how long an address that a client is given is good.
    :ivar patience_s: how long an answer is waited for while a client waits.
    :ivar spool_max_bytes: how much may wait on the local disk for its upload, with what is just arriving.
    :ivar uploads: how many run at once.
    :ivar tier_max_bytes: how much stays on the local disk after its upload, and is served from there; 0 is nothing.
    :ivar lease_wait_s: how long another proxy that fetches the same content is waited for; 0 is not at all.
    """

    bucket: str = "oci-cache"
    prefix: str = ""
    path_style: bool = True
    lifecycle_days: int = 28
    endpoint_url: str | None = None
    region: str | None = None
    public_endpoint_url: str | None = None
    url_life_s: float = 900.0
    patience_s: float = 2.0
    spool_max_bytes: int = 20 * 2**30
    uploads: int = 4
    tier_max_bytes: int = 0
    lease_wait_s: float = 0.0
