"""What of an entry can be tried without a network: files are there, programs are found, packages are installed."""

from __future__ import annotations

import json
from collections.abc import Callable

from txociproxy.upstreams.connecting.trust import check_tls
from txociproxy.upstreams.entries.entry import Entry, Tls
from txociproxy.upstreams.entries.reading import EntryError
from txociproxy.upstreams.logins.accounts import DockerConfig, Ecr, Helper, LoginUnavailable, PasswordFile
from txociproxy.upstreams.logins.docker_config import MAX_CONFIG_BYTES
from txociproxy.upstreams.logins.ecr import check_ecr, region_of
from txociproxy.upstreams.logins.helpers import DEFAULT_PATH, PREFIX, find_program
from txociproxy.upstreams.logins.secret_files import read_password_file, read_secret


def check_entry(entry: Entry, check_sdk: Callable[[], None] = check_ecr) -> None:
    """Try what an entry names on this machine; blocks for as long as small files take.

    :param check_sdk: says with ValueError that the AWS SDK is missing.
    :raises EntryError: it cannot be used; what stands in ``credentials`` is not in the text.
    """
    account, tls = entry.account, entry.tls
    if isinstance(account, PasswordFile):
        _try(entry, lambda: _check_password_file(account), "credentials", "password_file")
    elif isinstance(account, DockerConfig):
        _try(entry, lambda: _check_docker_config(account), "credentials", "docker_config")
    elif isinstance(account, Helper):
        _try(entry, lambda: _check_helper(account), "credentials", "helper")
    elif isinstance(account, Ecr):
        _try(entry, lambda: _check_ecr(account, entry, check_sdk), "credentials", "ecr")
    if tls is not None:
        _check_tls(entry, tls)


def _try(entry: Entry, check: Callable[[], None], *at: str) -> None:
    """Say where it is when a check fails."""
    try:
        check()
    except ValueError as error:
        raise EntryError(f"upstreams[{entry.namespace}].{'.'.join(at)}: {error}", *at) from None


def _check_tls(entry: Entry, tls: Tls) -> None:
    """Read certificates and key; paths are no secrets, and what stands in the files is never in the text."""
    try:
        check_tls(tls)
    except ValueError as error:
        key, _, why = str(error).removeprefix("tls.").partition(": ")
        text = f"upstreams[{entry.namespace}].tls.{key}: {why}; name the right file in PEM"
        raise EntryError(text, "tls", key) from None


def _check_password_file(account: PasswordFile) -> None:
    try:
        read_password_file(account)
    except LoginUnavailable as error:
        # A password that was written in place of a path is no path to show.
        why = str(error).replace(account.path, "the file")
        raise ValueError(f"{why}; name a readable file with the password alone") from None


def _check_docker_config(account: DockerConfig) -> None:
    remedy = "name a config.json as docker login writes it"
    try:
        content = json.loads(read_secret(account.path, MAX_CONFIG_BYTES))
    except LoginUnavailable as error:
        raise ValueError(f"{str(error).replace(account.path, 'the file')}; {remedy}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"the file is not JSON; {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"the file is not a JSON object; {remedy}")


def _check_helper(account: Helper) -> None:
    path = dict(account.environment).get("PATH", DEFAULT_PATH)
    if find_program(PREFIX + account.name, path) is None:
        raise ValueError(f"the program {PREFIX}<helper> is not in PATH; install it, or correct the name")


def _check_ecr(account: Ecr, entry: Entry, check_sdk: Callable[[], None]) -> None:
    check_sdk()
    if account.region is None and region_of(entry.urls[0]) is None:
        raise ValueError(
            "its region is not known from the first of `urls`, which is not <account>.dkr.ecr.<region>.amazonaws.com; "
            "write {region: eu-central-1}"
        )
