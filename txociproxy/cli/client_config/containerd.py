"""containerd: one hosts.toml for each registry, in a directory that config.toml names."""

from __future__ import annotations

from txociproxy.cli.client_config.files import Cache, File, quoted
from txociproxy.upstreams.entries.reading import SHIPPED_URLS

CERTS = "/etc/containerd/certs.d"
_CONFIG = "/etc/containerd/config.toml"


def files(cache: Cache) -> list[File]:
    """Return the files of containerd 1.5 and later."""
    each = [_hosts(cache, registry) for registry in cache.registries]
    return [_config_1(), _config_2(), *each, _others(cache)]


def _config_1() -> File:
    return File(
        f"{_CONFIG} (containerd 1.5 to 1.7)",
        (
            "Merge this into the file and restart containerd; hosts.toml itself is read at each pull.",
            'The older tables registry.mirrors and registry.configs."...".tls must go: with config_path beside them',
            "the CRI plugin does not start.",
            "ctr reads none of this: ctr images pull --hosts-dir /etc/containerd/certs.d ...; nerdctl reads certs.d.",
        ),
        f'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "{CERTS}"\n',
    )


def _config_2() -> File:
    return File(
        f"{_CONFIG} (containerd 2.x)",
        (
            "Merge this into the file and restart containerd. Name exactly one directory: a list with colons, which is",
            "the default in some versions, is taken for one path when the transfer service pulls (the default since",
            "2.1), and the mirror is passed over without a word (containerd issues 12415, 12636).",
            "If the cache is still not asked, let CRI pull by itself: use_local_image_pull = true below",
            "[plugins.'io.containerd.cri.v1.images'].",
        ),
        f"version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\n  config_path = '{CERTS}'\n",
    )


def _hosts(cache: Cache, registry: str) -> File:
    """Return the file of one registry."""
    server = SHIPPED_URLS.get(registry, f"https://{registry}")
    remarks = (
        "server is asked when the cache does not answer; without that line it is the registry itself all the same.",
        "override_path is not needed: containerd says by ns= which registry it means.",
    )
    return File(f"{CERTS}/{registry}/hosts.toml", remarks, f"server = {quoted(server)}\n\n{_host(cache)}")


def _others(cache: Cache) -> File:
    """Return the file of all registries that have none of their own."""
    remarks = (
        "For all other registries. There must be no server here: it would stand for each of them.",
        "The cache fetches from registries it does not know as a stranger would, or refuses them (unlisted).",
    )
    return File(f"{CERTS}/_default/hosts.toml", remarks, _host(cache))


def _host(cache: Cache) -> str:
    """Return the table of the cache."""
    lines = [f"[host.{quoted(cache.url)}]", '  capabilities = ["pull", "resolve"]']
    if cache.insecure:
        lines.append("  skip_verify = true")
    if cache.ca:
        lines.append(f"  ca = {quoted(cache.ca)}")
    if cache.client_cert and cache.client_key:
        lines.append(f"  client = [[{quoted(cache.client_cert)}, {quoted(cache.client_key)}]]")
    return "\n".join(lines) + "\n"
