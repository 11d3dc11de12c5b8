"""What each part needs of the configuration, in the part's own words."""

from __future__ import annotations

from txociproxy.assembly import CoreRules
from txociproxy.caps import IngestCaps
from txociproxy.config import Config
from txociproxy.elsewhere import RedirectRules
from txociproxy.ingest.limits import IngestLimits
from txociproxy.meanings import TagRules
from txociproxy.parts import RangeRules
from txociproxy.web.settings import WebSettings
from txociproxy.web.site import DoorLimits, DoorTimes


def core_rules(config: Config) -> CoreRules:
    """Return what the core needs of the configuration."""
    return CoreRules(
        IngestLimits(silence_s=config.silence_timeout_s, spool_stall_s=config.spool_stall_s),
        IngestCaps(
            total=config.max_ingests,
            per_namespace=config.max_ingests_per_namespace,
            per_client=config.max_ingests_per_client,
            lonely=config.max_lonely_ingests,
            memory_bytes=config.max_ingest_memory_bytes,
            carried=config.max_carried,
        ),
        TagRules(
            keep_tags=config.cache_tag_manifests,
            keep_latest=config.cache_latest_tag,
            fresh_s=config.tag_fresh_s,
            swr_s=config.tag_swr_s,
            stale_if_error_s=config.stale_if_error_s,
            on_upstream_404=config.on_upstream_404,
        ),
        RangeRules(
            miss=config.range_miss,
            relays=config.max_range_relays,
            relays_per_digest=config.max_range_relays_per_digest,
        ),
        RedirectRules(above_bytes=config.redirect_above_bytes, not_for=config.no_redirect),
    )


def web_settings(config: Config) -> WebSettings:
    """Return what the doors need of the configuration."""
    return WebSettings(
        public_url=config.public_url,
        is_transparent=config.mode == "transparent",
        client_stall_s=config.client_stall_s,
        limits=DoorLimits(config.max_connections, config.max_connections_per_client),
        times=DoorTimes(config.header_timeout_s, config.idle_timeout_s),
        owns_authorization=bool(config.htpasswd_file or config.tls_client_ca),
        trusted_proxies=config.trusted_proxies,
    )
