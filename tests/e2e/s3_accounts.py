"""Keys of the bucket's owner that the gateway learns and forgets."""

from __future__ import annotations

from tests.e2e.ceph import OWNER, Account, Ceph
from tests.e2e.processes import run


def give_key(ceph: Ceph, account: Account) -> None:
    """Let the gateway know a key of the owner, or another secret of it."""
    _change_key(ceph, "create", account, "--secret-key", account.secret_key)


def take_key(ceph: Ceph, account: Account) -> None:
    """Let the gateway forget a key of the owner."""
    _change_key(ceph, "rm", account)


def _change_key(ceph: Ceph, what: str, account: Account, *more: str) -> None:
    """Change the owner's keys; it counts at once."""
    command = ["radosgw-admin", "-c", ceph._config, "key", what, "--uid", OWNER, "--access-key", account.access_key]
    run([*command, *more], 30)
