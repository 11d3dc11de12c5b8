"""The proxy's own logins: what is configured becomes a source that reads it when it is needed."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import frozen

from txociproxy.interfaces import IWorkers
from txociproxy.upstreams.logins.accounts import (
    Account,
    DockerConfig,
    Ecr,
    Helper,
    Login,
    LoginSource,
    Password,
    PasswordFile,
)
from txociproxy.upstreams.logins.docker_config import DockerConfigReader
from txociproxy.upstreams.logins.ecr import EcrReader
from txociproxy.upstreams.logins.helpers import HelperReader
from txociproxy.upstreams.logins.keeper import Keeper, Reader, Reading, in_thread
from txociproxy.upstreams.logins.secret_files import read_password_file

PASSWORD_FILE_KEPT_S = 60.0


def source_of(account: Account, url: str, reactor: Any, workers: IWorkers) -> LoginSource:
    """Return the source of the logins of one upstream; nothing is read before the first ask.

    :param url: the upstream's first URL.
    :param reactor: starts helpers and tells the time.
    :param workers: where files are read and the AWS SDK runs.
    """
    if isinstance(account, Password):
        return Fixed(Login(account.username, account.password))
    return Keeper(_reader_of(account, url, reactor, workers), reactor)


def _reader_of(account: Account, url: str, reactor: Any, workers: IWorkers) -> Reader:
    if isinstance(account, PasswordFile):
        return PasswordFileReader(account, workers)
    if isinstance(account, DockerConfig):
        return DockerConfigReader(account, url, workers, partial(source_of, url=url, reactor=reactor, workers=workers))
    if isinstance(account, Helper):
        return HelperReader(account, url, reactor, workers)
    assert isinstance(account, Ecr)
    return EcrReader(account, url, workers)


@frozen
class Fixed:
    """The login that was configured."""

    _login: Login

    async def login(self) -> Login:
        """See :meth:`LoginSource.login`."""
        return self._login

    def refused(self, login: Login) -> None:
        """There is no other."""

    def stop(self) -> None:
        """Nothing runs."""


@frozen
class PasswordFileReader(Reader):
    """Reads the file for each reading."""

    _account: PasswordFile
    _workers: IWorkers

    async def read(self) -> Reading:
        """See :meth:`Reader.read`."""
        return Reading(await in_thread(self._workers, read_password_file, self._account), PASSWORD_FILE_KEPT_S)
