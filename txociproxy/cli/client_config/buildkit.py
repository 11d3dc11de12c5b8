"""BuildKit: buildkitd.toml."""

from __future__ import annotations

from txociproxy.cli.client_config.files import Cache, File, quoted


def files(cache: Cache) -> list[File]:
    """Return the file of buildkitd."""
    remarks = [
        "Without root: ~/.config/buildkit/buildkitd.toml. For docker buildx any path does, when a builder is made:",
        "  docker buildx create --use --driver docker-container --buildkitd-config buildkitd.toml",
        "(older ones: --config); the engine's own builder reads daemon.json instead (client-config docker).",
        "BuildKit says by ns= which registry it means; the registry itself is asked when the cache fails.",
    ]
    if cache.is_loopback:
        remarks.append("A builder in a container has a loopback of its own: name the cache by another address, or add")
        remarks.append("--driver-opt network=host.")
    mirrors = (f"[registry.{quoted(name)}]\n  mirrors = [{quoted(cache.host)}]\n" for name in cache.registries)
    return [File("/etc/buildkit/buildkitd.toml", tuple(remarks), "\n".join([*mirrors, _cache(cache)]))]


def _cache(cache: Cache) -> str:
    """Return the table of the cache itself; mirrors have no scheme, so it stands here."""
    lines = [f"[registry.{quoted(cache.host)}]"]
    if cache.is_plain:
        lines.append("  http = true")
    if cache.insecure:
        lines.append("  insecure = true")
    if cache.ca:
        lines.append(f"  ca = [{quoted(cache.ca)}]")
    if cache.client_cert and cache.client_key:
        lines.append(f"  [[registry.{quoted(cache.host)}.keypair]]")
        lines.append(f"    cert = {quoted(cache.client_cert)}")
        lines.append(f"    key = {quoted(cache.client_key)}")
    return "\n".join(lines) + "\n"
