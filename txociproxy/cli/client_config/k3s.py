"""K3s and RKE2: registries.yaml, from which they write containerd's files."""

from __future__ import annotations

from txociproxy.cli.client_config.files import Cache, File, quoted


def files(cache: Cache) -> list[File]:
    """Return the file of K3s."""
    remarks = (
        "On every node that pulls, servers too; in RKE2 /etc/rancher/rke2/registries.yaml. Restart K3s after a change;",
        "what it writes below /var/lib/rancher/k3s/agent/etc/containerd is its own, and yours would be overwritten.",
        "rewrite is not needed: containerd says by ns= which registry it means.",
        'The registry itself is asked last, unless K3s runs with --disable-default-registry-endpoint. "*" as a mirror',
        "stands for all other registries, in versions from January 2024 on.",
    )
    return [File("/etc/rancher/k3s/registries.yaml", remarks, f"{_mirrors(cache)}{_configs(cache)}")]


def _mirrors(cache: Cache) -> str:
    """Return where to look for images."""
    each = (f"  {quoted(name)}:\n    endpoint:\n      - {quoted(cache.url)}\n" for name in (*cache.registries, "*"))
    return f"mirrors:\n{''.join(each)}"


def _configs(cache: Cache) -> str:
    """Return what is to be known about the cache; its key is the host of the endpoint, not of the registry."""
    pairs = (("ca_file", cache.ca), ("cert_file", cache.client_cert), ("key_file", cache.client_key))
    lines = [f"      {name}: {quoted(value)}\n" for name, value in pairs if value]
    if cache.insecure:
        lines.append("      insecure_skip_verify: true\n")
    return f"configs:\n  {quoted(cache.host)}:\n    tls:\n{''.join(lines)}" if lines else ""
