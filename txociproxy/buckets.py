"""Which bucket there is: what the settings say about S3 becomes one value, or one clear sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from txociproxy.sources import Said, shown
from txociproxy.storage.s3.settings import S3Settings
from txociproxy.yamlfile import ConfigError

# They mean nothing without a bucket.
BUCKET_SETTINGS = (
    *("s3_bucket", "s3_prefix", "s3_endpoint_url", "s3_public_endpoint_url", "s3_region", "s3_force_path_style"),
    *("s3_lifecycle_days", "s3_url_life_s", "s3_patience_s", "s3_uploads", "s3_lease_wait_s", "redirect"),
    *("no_redirect", "spool_dir", "spool_max", "disk_tier"),
)
URL_LIFE_S = 900.0
# Whoever loses his right to an image can fetch it for no longer (RULES D4).
PRIVATE_URL_LIFE_S = 120.0
# Where the SDK looks for the server if we do not name one; the first that is set counts.
SDK_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def chosen_bucket(
    values: dict[str, Any],
    said: Mapping[str, Said],
    said_here: Mapping[str, Said],
    environ: Mapping[str, str],
    find: Callable[[str], object | None] = find_spec,
) -> dict[str, Any]:
    """Take what is about a bucket out of the settings, and return what becomes of it in the configuration.

    :param said: where each setting was said, for messages.
    :param said_here: what was said for this proxy alone, in options and file; an environment may be that of many.
    :param environ: what the SDK reads too.
    :param find: looks for a module without importing it.
    :raises ConfigError: something is wrong; the AWS SDK is not installed.
    """
    chosen = {name: values.pop(name) for name in BUCKET_SETTINGS}
    s3 = None
    if values["storage_backend"] == "s3":
        if find("boto3") is None:
            raise ConfigError(
                f"{said['storage_backend'].where}: s3 needs the AWS SDK, which is not installed; write "
                "pip install 'txociproxy[aws]'"
            )
        if chosen["s3_endpoint_url"] is None:
            _check_endpoint(environ)
        s3 = _settings(chosen, is_private=values["mode"] == "authenticated")
    else:
        _refuse_unused(said_here)
    return {
        "s3": s3,
        "spool_dir": chosen["spool_dir"] or str(Path(values["fs_root"]) / "spool"),
        "redirect_above_bytes": chosen["redirect"],
        "no_redirect": chosen["no_redirect"] or (),
    }


def _refuse_unused(said_here: Mapping[str, Said]) -> None:
    """Refuse what would have no effect: whoever wrote it expects one."""
    for name in BUCKET_SETTINGS:
        if name in said_here:
            raise ConfigError(
                f"{said_here[name].where}: counts with storage_backend s3 only; remove it, or use storage_backend s3"
            )


def _check_endpoint(environ: Mapping[str, str]) -> None:
    """Refuse an address that the SDK cannot use: nothing but a new start with another one would end that outage."""
    name = next((name for name in SDK_ENDPOINTS if environ.get(name)), None)
    if name is None:
        return
    try:
        parts = urlsplit(environ[name])
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return  # the SDK takes a path too
    except ValueError:
        pass  # half an IPv6 address, a port that is no number
    raise ConfigError(
        f"{name}: {shown(environ[name])} is not the address of an S3 server; write https://s3.example.com or "
        "http://10.0.0.5:9000"
    )


def _settings(chosen: Mapping[str, Any], is_private: bool) -> S3Settings:
    """Return what the storage needs to know."""
    return S3Settings(
        bucket=chosen["s3_bucket"],
        prefix=chosen["s3_prefix"] or "",
        path_style=chosen["s3_force_path_style"],
        lifecycle_days=chosen["s3_lifecycle_days"],
        endpoint_url=chosen["s3_endpoint_url"],
        region=chosen["s3_region"],
        public_endpoint_url=chosen["s3_public_endpoint_url"],
        url_life_s=chosen["s3_url_life_s"] or (PRIVATE_URL_LIFE_S if is_private else URL_LIFE_S),
        patience_s=chosen["s3_patience_s"],
        spool_max_bytes=chosen["spool_max"],
        uploads=chosen["s3_uploads"],
        tier_max_bytes=chosen["disk_tier"],
        lease_wait_s=chosen["s3_lease_wait_s"],
    )
