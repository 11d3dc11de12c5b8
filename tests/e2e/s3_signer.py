"""The product's own signer, alone: ``python -m tests.e2e.s3_signer URL BUCKET KEY LIFE_S`` prints an address.

Whoever it signs for is told by the environment, as for the product itself.
"""

from __future__ import annotations

import sys
import time

from tests.e2e.ceph import Account
from tests.e2e.processes import run
from txociproxy.storage.s3.connecting import connect
from txociproxy.storage.s3.settings import S3Settings


def signed(account: Account, url: str, bucket: str, key: str, life_s: float) -> str:
    """Return an address for an object that is good for so long, from a process of its own."""
    words = [sys.executable, "-m", "tests.e2e.s3_signer", url, bucket, key, life_s]
    return run(words, 30, account.environment()).strip()


def main(url: str, bucket: str, key: str, life_s: str) -> None:
    """Sign one GET from now on."""
    signer = connect(S3Settings(bucket=bucket, endpoint_url=url)).signer
    print(signer.presign("GET", key, float(life_s), time.time(), public=True)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
