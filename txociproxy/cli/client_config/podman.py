"""podman, buildah, skopeo and CRI-O: a drop-in of registries.conf."""

from __future__ import annotations

from txociproxy.cli.client_config.files import Cache, File, certificate_files, quoted

_DROP_IN = "/etc/containers/registries.conf.d/50-txociproxy.conf"
_COMMON = (
    "The registry itself is asked when the cache fails. The same registry in another file of registries.conf.d, if",
    "that comes later by name, takes the place of what is said here.",
    "mirror-by-digest-only must not be set: tags would pass the cache by.",
    'A short name (alpine) has no mirror before it has a registry: unqualified-search-registries = ["docker.io"].',
)


def files(cache: Cache) -> list[File]:
    """Return the files of podman, buildah and skopeo."""
    remarks = (
        "For one user alone: ~/.config/containers/registries.conf.d. Nothing has to be restarted.",
        *_COMMON,
        f"Logins for the cache are podman login {cache.host}; those for the registry do not reach it.",
    )
    return [File(_DROP_IN, remarks, _tables(cache)), *_certificates(cache, "podman")]


def crio_files(cache: Cache) -> list[File]:
    """Return the files of CRI-O."""
    remarks = (
        "CRI-O reads it again at systemctl reload crio.",
        *_COMMON,
    )
    return [File(_DROP_IN, remarks, _tables(cache)), *_certificates(cache, "CRI-O")]


def _tables(cache: Cache) -> str:
    """Return one registry after another, each with the cache as its mirror; no ``ns=`` here, so the path says it.

    :raises ValueError: a registry's name cannot stand in a path.
    """
    for registry in cache.registries:
        if ":" in registry:
            raise ValueError(
                f"--registry: {registry}: the port would stand within the image's name, which these clients refuse; "
                "give the cache an upstream without a port in its namespace"
            )
    insecure = "insecure = true\n" if cache.is_plain or cache.insecure else ""
    return "\n".join(
        f"[[registry]]\nlocation = {quoted(registry)}\n\n"
        f"[[registry.mirror]]\nlocation = {quoted(f'{cache.host}/{registry}')}\n{insecure}"
        for registry in cache.registries
    )


def _certificates(cache: Cache, tool: str) -> list[File]:
    return certificate_files(cache, "/etc/containers/certs.d", tool)
