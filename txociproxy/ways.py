"""The connections to a bucket: made as those to upstreams are, with the same outbound proxies."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.web.iweb import IAgent

from txociproxy.storage.s3.settings import S3Settings
from txociproxy.storage.s3.trouble import S3Trouble
from txociproxy.upstreams.connecting.agents import Line, open_line
from txociproxy.upstreams.connecting.proxies import OutboundProxies
from txociproxy.upstreams.connecting.tls_files import TlsFiles
from txociproxy.upstreams.connecting.trust import SystemTrust, trust_of
from txociproxy.upstreams.entries.entry import Entry, Tls
from txociproxy.upstreams.origins import Origin

# Clients wait meanwhile, and have an upstream to turn to.
CONNECT_S = 2.0
IDLE_CONNECTIONS = 64


@define(eq=False)
class BucketWays:
    """Agents for the servers of one bucket, each made once.

    :ivar _reactor: IReactorTCP, IReactorTime and IReactorPluggableNameResolver.
    :ivar _settings: its bucket, and whether that stands in front of the server's name.
    """

    _reactor: Any
    _settings: S3Settings
    _proxies: OutboundProxies
    _lines: dict[tuple[str, str | None], Line] = field(factory=dict, init=False)

    def agent_for(self, endpoint_url: str, ca_file: str | None) -> IAgent:
        """Return what sends requests to this server; nothing is connected yet.

        :param ca_file: PEM certificates that are trusted beside the system's, where the address is one of https.
        :raises S3Trouble: the address or the file cannot be used.
        """
        line = self._lines.get((endpoint_url, ca_file))
        if line is None:
            line = self._lines[endpoint_url, ca_file] = self._open(endpoint_url, ca_file)
        return line.agent

    def stop(self) -> Deferred[None]:
        """End all connections."""
        return DeferredList([line.stop() for line in self._lines.values()]).addCallback(lambda _: None)

    def _open(self, endpoint_url: str, ca_file: str | None) -> Line:
        # Read where it counts only: the file of a whole system takes its time.
        tls = Tls(ca=ca_file if endpoint_url.lower().startswith("https:") else None)
        try:
            entry = Entry(
                "s3",
                self._urls(endpoint_url),
                library=False,
                connect_timeout_s=CONNECT_S,
                max_connections=IDLE_CONNECTIONS,
                tls=tls,
            )
            trust = trust_of(entry, TlsFiles.read(tls), SystemTrust())
        except ValueError as error:
            raise S3Trouble("refused", str(error), "the S3 server cannot be used") from None
        return open_line(self._reactor, entry, trust, self._proxies)

    def _urls(self, endpoint_url: str) -> tuple[str, ...]:
        """Return under which names the server is asked: all may have private addresses (RULES F2)."""
        origin = Origin.of(endpoint_url)
        server = str(origin)
        if self._settings.path_style or _is_address(origin.host):
            return (server,)
        return server, server.replace("://", f"://{self._settings.bucket}.", 1)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
