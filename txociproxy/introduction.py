"""What is said at the start about where content is kept, and who trusts whom (RULES C6, D3, D4, G3)."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IListeningPort
from twisted.logger import LogLevel

from txociproxy.config import Config, unused_credentials
from txociproxy.oci.errors import StorageUnavailable
from txociproxy.web.doors import place_of
from txociproxy.web.ports import each_port, is_secure


def storage_words(config: Config) -> dict[str, str]:
    """Say where content is kept."""
    if config.s3 is None:
        return {"storage": f"fs:{config.fs_root}"}
    words = {"storage": f"s3:{config.s3.bucket}" + (f"/{config.s3.prefix}" if config.s3.prefix else "")}
    if config.s3.endpoint_url is not None:
        words["endpoint"] = config.s3.endpoint_url
    return {**words, "spool": config.spool_dir}


def place_of_storage(config: Config, error: StorageUnavailable) -> str:
    """Name the setting behind a storage that cannot be used, with its value."""
    if config.s3 is None:
        return f"--fs-root: {config.fs_root!r}"
    if config.spool_dir in str(error):
        return f"--spool-dir: {config.spool_dir!r}"
    return f"--s3-bucket: {config.s3.bucket!r}"


def trust_lines(config: Config) -> list[tuple[LogLevel, str, list[str]]]:
    """Say whose credentials go where, and what becomes readable to whom (RULES C6, D3)."""
    forwards = [entry.namespace for entry in config.upstreams if entry.client_credentials == "forward"]
    if config.htpasswd_file or config.tls_client_ca:
        forwards = []  # Authorization is ours then
    owned = [entry.namespace for entry in config.upstreams if entry.account is not None]
    lines: list[tuple[LogLevel, str, list[str]]] = []
    if len(config.upstreams) > 1 and forwards:
        lines.append((LogLevel.info, "these upstreams see the credentials that clients send for them", forwards))
    if owned and config.mode == "transparent":
        text = "whoever reaches this proxy can pull what these upstreams give to its own credentials"
        lines.append((LogLevel.warn, text, owned))
    elif unused_credentials(config):
        text = "authenticated mode asks in the client's name only: these upstreams' own credentials are not used"
        lines.append((LogLevel.warn, text, owned))
    return lines


def is_public(port: IListeningPort) -> bool:
    """Say whether others than this machine can connect to a door and speak plain HTTP there."""
    return any(map(_is_public, each_port(port)))


def _is_public(port: IListeningPort) -> bool:
    address = port.getHost()
    if is_secure(port) or not isinstance(address, IPv4Address | IPv6Address):
        return False
    return not ip_address(address.host.partition("%")[0] or "::").is_loopback


def plain_warning(config: Config, ports: Iterable[IListeningPort]) -> str | None:
    """Return what to warn of: passwords can be read on the way (RULES D4), or a lock has a hole; None for nothing."""
    places = [place_of(port) for port in ports if is_public(port)]
    if not places:
        return None
    if config.tls_client_ca and not config.htpasswd_file:
        return f"clients need no certificate in plain HTTP at {','.join(places)}; say https://, or 127.0.0.1"
    if config.mode != "authenticated" and not config.htpasswd_file:
        return None
    return (
        f"passwords and tokens cross the network in plain HTTP at {','.join(places)}; give --tls-cert and --tls-key, "
        "or put a TLS proxy in front"
    )
