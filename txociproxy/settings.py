"""Everything that can be configured: one row per setting, from which options, variables and file keys follow."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from txociproxy import bucket_values as b
from txociproxy import quantities as q


@frozen
class Setting:
    """One thing that can be configured.

    :ivar name: its key in the file; ``--name`` with dashes is the option.
    :ivar read: from text to value; see :mod:`txociproxy.quantities`.
    :ivar default: as text, or None when there is none or it is computed.
    :ivar meaning: what changes with it, for a person; the unit is in it.
    :ivar seed_variable: the name of its environment variable where that is not ``OCIPROXY_<NAME>``.
    :ivar several: whether it may be given more than once.
    """

    name: str
    read: Callable[[str], object]
    default: str | None
    meaning: str
    seed_variable: str | None = None
    several: bool = False

    @property
    def option(self) -> str:
        """The name of the option, without its dashes."""
        return self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return self.seed_variable or f"OCIPROXY_{self.name.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "mode",
        q.choice("transparent", "authenticated"),
        None,
        "Who decides about a pull of kept content: transparent (nobody; the network is the border) or authenticated "
        "(the upstream, each time). Required.",
        "PROXY_MODE",
    ),
    Setting(
        "config",
        q.absolute_path,
        None,
        "A YAML file with the same settings in snake_case, and the list of upstreams.",
    ),
    Setting(
        "listen",
        q.address,
        ":8080",
        "Where clients connect: :PORT for all addresses (IPv6 and IPv4), HOST:PORT, unix:/PATH, systemd: for the "
        "sockets that systemd hands over, or a Twisted endpoint description; https:// or http:// in front says whether "
        "TLS is spoken there (unless said: if a certificate is configured, but not on Unix sockets). Repeatable; in "
        "the environment separated by commas. With generate_self_signed_tls the default is :8443.",
        "LISTEN_ADDR",
        several=True,
    ),
    Setting(
        "tls_cert",
        q.absolute_path,
        None,
        "The certificate of the doors that speak TLS, with its chain, as PEM; it is read again at SIGHUP and when the "
        "file changes.",
    ),
    Setting("tls_key", q.absolute_path, None, "The private key of tls_cert, as PEM without a passphrase."),
    Setting(
        "tls_client_ca",
        q.absolute_path,
        None,
        "Only clients with a certificate of one of these authorities (PEM) are let in where TLS is spoken; what they "
        "send as Authorization goes nowhere then.",
    ),
    Setting(
        "generate_self_signed_tls",
        q.boolean,
        "false",
        "Whether TLS is spoken with a certificate that is made at the start and kept in memory only, for localhost, "
        "host.docker.internal, 127.0.0.1 and ::1; for development.",
        "GENERATE_SELF_SIGNED_TLS",
    ),
    Setting(
        "tls_san",
        q.subject,
        None,
        "One more name or IP address for the certificate of generate_self_signed_tls. Repeatable; in the environment "
        "separated by commas.",
        several=True,
    ),
    Setting(
        "htpasswd_file",
        q.absolute_path,
        None,
        "Only users of this file (bcrypt only, as htpasswd -B writes it) are let in; what clients send as "
        "Authorization is for this proxy then and goes nowhere else. Read again at SIGHUP and when it changes.",
    ),
    Setting(
        "trusted_proxies",
        b.network,
        None,
        "Networks of the load balancers and TLS proxies in front, whose X-Forwarded-For, X-Forwarded-Proto and "
        "X-Forwarded-Host are believed. Repeatable; in the environment separated by commas.",
        several=True,
    ),
    Setting(
        "admin_listen",
        q.address,
        None,
        "Where /metrics, /healthz and /readyz are served apart from the pulls, for example "
        "unix:/run/ociproxy/admin.sock (a Unix socket is for its owner only) or 127.0.0.1:9090; /metrics is no longer "
        "on the doors of clients then. Plain HTTP unless it says https://.",
    ),
    Setting(
        "public_url",
        q.base_url,
        None,
        "The address of this proxy as clients see it, for the token server's address in challenges. Default: the "
        "scheme and Host of each request.",
    ),
    Setting(
        "token_key_file",
        q.absolute_path,
        None,
        "A file of at least 32 secret bytes; proxies that share it accept each other's tokens. Default: a key made at "
        "each start.",
    ),
    Setting(
        "storage_backend",
        q.choice("fs", "s3"),
        "fs",
        "Where content is kept: fs (a directory) or s3 (a bucket, which any number of proxies may share).",
        "STORAGE_BACKEND",
    ),
    Setting(
        "fs_root",
        q.absolute_path,
        None,
        "The directory of the storage. Default: $CACHE_DIRECTORY, else /var/cache/txociproxy for root, else "
        "txociproxy in the user's cache directory.",
        "FS_ROOT",
    ),
    Setting(
        "adopt_store",
        q.boolean,
        "false",
        "Whether a storage that was kept in the other mode is taken over by this start; who may read its content "
        "changes with that.",
    ),
    Setting(
        "min_free",
        q.min_free,
        "5%",
        "Space on the file system of fs_root (with s3: of spool_dir) that stays free: a percentage (and at least "
        "1 GiB), a size, or 0. With less, pulls go on and nothing more is kept.",
    ),
    Setting("s3_bucket", b.bucket, "oci-cache", "The bucket; it is made if it is missing.", "S3_BUCKET"),
    Setting(
        "s3_prefix",
        b.key_prefix,
        None,
        "What stands in front of all keys, so that a bucket can be shared with others. Default: nothing.",
        "S3_PREFIX",
    ),
    Setting(
        "s3_endpoint_url",
        b.endpoint,
        None,
        "The address of the S3 server. Default: what the AWS SDK finds (AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, its "
        "files), else Amazon's.",
    ),
    Setting(
        "s3_public_endpoint_url",
        b.endpoint,
        None,
        "The address of the same server for clients, where it is another. Default: the same.",
        "S3_PUBLIC_ENDPOINT_URL",
    ),
    Setting(
        "s3_region",
        b.region,
        None,
        "The region of the bucket. Default: what the AWS SDK finds, else us-east-1.",
        "AWS_REGION",
    ),
    Setting(
        "s3_force_path_style",
        q.boolean,
        "true",
        "Whether the bucket's name stands in the path of URLs (most servers), or in front of their host.",
        "S3_FORCE_PATH_STYLE",
    ),
    Setting(
        "s3_lifecycle_days",
        b.days,
        "28",
        "After how many days the bucket removes content that nobody has pulled; 0 is never. Tags go with it.",
        "S3_LIFECYCLE_DAYS",
    ),
    Setting(
        "s3_url_life_s",
        b.url_life,
        None,
        "How long the address is good that a client is redirected to, 30s to 12h. Default: 15m, 2m in authenticated "
        "mode.",
    ),
    Setting(
        "redirect",
        b.redirect_above,
        "always",
        "Which blobs of the bucket clients fetch from there: always (all), never (none), or those above a size, "
        "for example >64MiB (in YAML in quotes). All others go through the proxy.",
    ),
    Setting(
        "no_redirect",
        b.network,
        None,
        "Networks of clients that cannot reach the bucket and are never redirected, for example 10.0.0.0/8. "
        "Repeatable; in the environment separated by commas.",
        several=True,
    ),
    Setting(
        "s3_patience_s",
        q.timeout,
        "2",
        "How long the bucket may take to answer while a client waits; after that the upstream is asked.",
    ),
    Setting("s3_uploads", b.uploads, "4", "Most uploads to the bucket at once, up to 12."),
    Setting(
        "s3_lease_wait_s",
        q.duration,
        "0",
        "How long another proxy that is fetching the same content from its upstream is waited for; 0 is not at all.",
    ),
    Setting(
        "spool_dir",
        q.absolute_path,
        None,
        "With s3: the local directory where content waits for its upload, one for each proxy. Default: spool in what "
        "fs_root would be.",
    ),
    Setting(
        "spool_max",
        q.room,
        "20GiB",
        "With s3: most content that is arriving or waits for its upload; beyond it pulls go on and nothing more is "
        "kept.",
    ),
    Setting(
        "disk_tier",
        q.size,
        "0",
        "With s3: how much content stays in spool_dir after its upload, and is served from there; 0 is nothing.",
    ),
    Setting(
        "upstream_registry",
        q.word,
        None,
        "The default namespace: a namespace of the table, or the URL of a registry, which makes an entry of its host.",
        "UPSTREAM_REGISTRY",
    ),
    Setting(
        "default_namespace",
        q.word,
        "docker.io",
        "The namespace of requests that name none; the same as upstream_registry without URLs.",
    ),
    Setting(
        "shipped_upstreams",
        q.boolean,
        "true",
        "Whether the table begins with the well-known public registries; false leaves only what you configure.",
    ),
    Setting(
        "unlisted",
        q.choice("public", "deny"),
        None,
        "What becomes of namespaces that are not in the table: public asks them as a stranger would (https, public "
        "addresses only, nobody's credentials), deny refuses them. Default: public in transparent mode, deny in "
        "authenticated mode and with an outbound proxy.",
    ),
    Setting(
        "cache_tag_manifests",
        q.boolean,
        "true",
        "Whether a tag is believed for tag_fresh_s; false asks the upstream each time.",
        "CACHE_TAG_MANIFESTS",
    ),
    Setting(
        "cache_latest_tag",
        q.boolean,
        "false",
        "Whether the tag latest is believed for tag_fresh_s too; cache_tag_manifests must be true as well.",
        "CACHE_LATEST_TAG",
    ),
    Setting("tag_fresh_s", q.duration, "1h", "How long a kept tag is served without asking the upstream."),
    Setting(
        "tag_swr_s",
        q.duration,
        "0",
        "How long after tag_fresh_s a tag is still served at once, while the upstream is asked in the background.",
    ),
    Setting(
        "stale_if_error_s",
        q.patience,
        "unlimited",
        "How old a tag may be when it is served because the upstream is lost; 0 is never.",
    ),
    Setting(
        "on_upstream_404",
        q.choice("keep", "drop"),
        "keep",
        "What happens to a kept tag that the upstream no longer has: keep serves it on for as long as stale_if_error_s "
        "says, drop forgets it.",
    ),
    Setting(
        "range_miss",
        q.choice("auto", "fill", "relay"),
        "auto",
        "A range of a blob that is not kept: fill fetches the whole blob too, relay only the range, auto when it pays.",
    ),
    Setting(
        "auth_cache_s",
        q.duration,
        "0",
        "How long a yes of the upstream to one credential and one digest counts again, in authenticated mode; never "
        "longer than the credential lives, and a revoked one pulls on for as long. 0 asks each time.",
    ),
    Setting("connect_timeout_s", q.timeout, "10", "How long a connection to an upstream may take to be made."),
    Setting("silence_timeout_s", q.timeout, "30", "How long an upstream may be silent within a body."),
    Setting("client_stall_s", q.timeout, "5m", "How long a client may take nothing of its body before it is cut."),
    Setting("spool_stall_s", q.timeout, "5", "How long a write to the storage may hang before it is given up."),
    Setting(
        "header_timeout_s",
        q.timeout,
        "20",
        "How long a client may take for its TLS handshake and for the head of a request.",
    ),
    Setting("idle_timeout_s", q.timeout, "60", "How long a connection may stay open between two requests."),
    Setting(
        "drain_timeout",
        q.duration,
        "30",
        "How long running pulls may go on after SIGTERM or SIGINT; then they are cut. A second signal ends at once.",
    ),
    Setting("max_connections", q.count, "4096", "Most connections of clients at once."),
    Setting("max_connections_per_client", q.count, "256", "Most connections of one client address."),
    Setting("max_ingests", q.count, "256", "Most blobs and manifests that are fetched from upstreams at once."),
    Setting("max_ingests_per_namespace", q.count, "64", "Most ingests (max_ingests) in one namespace."),
    Setting("max_ingests_per_client", q.count, "32", "Most ingests (max_ingests) begun by one client address."),
    Setting(
        "max_lonely_ingests",
        q.count,
        "16",
        "Most ingests (max_ingests) that go on although their last client has left.",
    ),
    Setting(
        "max_ingest_memory",
        q.size,
        "256MiB",
        "Most memory that arriving bodies may hold; beyond it upstreams are paused.",
    ),
    Setting(
        "max_carried",
        q.count,
        "512",
        "Most blobs that come from S3 through this proxy at once, half of them for one client address.",
    ),
    Setting("max_range_relays", q.count, "32", "Most ranges that are relayed from upstreams at once."),
    Setting("max_range_relays_per_digest", q.count, "4", "Most ranges of one blob that are relayed at once."),
    Setting(
        "log_level",
        q.choice("trace", "debug", "info", "warn", "error"),
        "info",
        "The least important lines that are logged: trace (each request to an upstream too), debug, info, warn or "
        "error.",
        "LOG_LEVEL",
    ),
    Setting(
        "log_format",
        q.choice("logfmt", "json"),
        "logfmt",
        "How lines are logged: logfmt (key=value) or json (one object a line).",
    ),
)
