"""The documents say what the code does."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from tests.upstreams.certificates import self_signed
from txociproxy import __version__
from txociproxy.config import Config, load
from txociproxy.options import Options
from txociproxy.settings import SETTINGS
from txociproxy.upstreams.entries import read_account, read_tags, read_tls, reading
from txociproxy.upstreams.entries.entry import Entry

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Every option, variable and key of the five programs whose users come here; by the heading of their table.
THEIR_NAMES = (
    (
        "nginx as a cache for registries",
        ("proxy_cache_path", "$request_uri", "proxy_cache_valid", "proxy_cache_valid 401 0", "proxy_cache_use_stale"),
        ("proxy_pass", "proxy_ssl_server_name", "proxy_ssl_verify", "client_header_buffer_size"),
        ("large_client_header_buffers", "command_user", "command_background", "pidfile", "start_pre", "checkpath"),
    ),
    (
        "A proxy with two modes and S3",
        ("PROXY_MODE", "STORAGE_BACKEND", "LISTEN_ADDR", "GENERATE_SELF_SIGNED_TLS", "LOG_LEVEL"),
        ("CACHE_TAG_MANIFESTS", "CACHE_LATEST_TAG", "S3_BUCKET", "S3_PREFIX", "S3_FORCE_PATH_STYLE"),
        ("S3_LIFECYCLE_DAYS", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"),
        ("~/.aws/credentials", "UPSTREAM_REGISTRY", "FS_ROOT", "KO_DOCKER_REPO", "-healthcheck"),
    ),
    (
        "A pull-only registry for Kubernetes",
        ("--preload-images", "--port", "--load-images", "--list-cache", "--version", "--image-path", "--log-level"),
        ("--config-path", "--pull-timeout", "--arch", "--os", "name", "description", "auth.user", "auth.password"),
        ("tls.ca", "tls.cert", "tls.key", "tls.insecure_skip_verify"),
    ),
    ("A small caching proxy in Go", ("make run", ":8080", "/tmp/cache/oci")),
    (
        "A mirror for any registry in Rust",
        ("--listen", "filesystem", "s3", "--root", "--upstream-config-file", "namespace", "host", "tls"),
        ("accept_invalid_certs", "user_agent", "username", "password", "manifest_invalidation_time"),
        ("blob_invalidation_time", "UPSTREAM_CREDENTIALS"),
    ),
)

# Amazon S3 User Guide, "Required permissions for Amazon S3 API operations".
RIGHTS = {
    "head_object": ("s3:GetObject",),
    "get_object": ("s3:GetObject",),
    "list_objects_v2": ("s3:ListBucket",),
    "create_bucket": ("s3:CreateBucket",),
    "put_object": ("s3:PutObject",),
    "delete_object": ("s3:DeleteObject",),
    "copy_object": ("s3:GetObject", "s3:PutObject"),
    "create_multipart_upload": ("s3:PutObject",),
    "upload_part": ("s3:PutObject",),
    "upload_part_copy": ("s3:GetObject", "s3:PutObject"),
    "complete_multipart_upload": ("s3:PutObject",),
    "abort_multipart_upload": ("s3:AbortMultipartUpload",),
    "list_multipart_uploads": ("s3:ListBucketMultipartUploads",),
    "get_bucket_lifecycle_configuration": ("s3:GetLifecycleConfiguration",),
    "put_bucket_lifecycle_configuration": ("s3:PutLifecycleConfiguration",),
    "delete_bucket_lifecycle": ("s3:PutLifecycleConfiguration",),
}


def rows(text: str) -> list[list[str]]:
    """Return the cells of all table rows."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def ticked(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


class ConfigurationPageTests(SynchronousTestCase):
    """docs/configuration.md against the table of settings, the options and the upstreams' keys."""

    def setUp(self) -> None:
        """Read the page."""
        self.page = (ROOT / "docs/configuration.md").read_text("utf-8")

    def section(self, heading: str) -> str:
        """Return what stands below a heading, up to the next one of any level."""
        found = re.search(rf"^{heading}\n(.*?)(?=^##|\Z)", self.page, re.M | re.S)
        assert found is not None, heading
        return found.group(1)

    def test_every_setting_has_its_row_and_every_row_its_setting(self) -> None:
        """Option, variable, default and meaning are those of the code, word for word."""
        settings = self.page.partition("\n## Settings")[2].partition("\n## ")[0]
        written = {cells[0]: cells for cells in rows(settings) if cells[0].startswith("`--")}
        known = {
            f"`--{setting.option}`": [
                f"`--{setting.option}`",
                f"`{setting.variable}`",
                "–" if setting.default is None else f"`{setting.default}`",
                setting.meaning,
            ]
            for setting in SETTINGS
        }
        self.assertEqual(set(written), set(known))
        self.assertEqual([cells for option, cells in known.items() if written[option] != cells], [])

    def test_every_option_of_the_command_is_a_setting(self) -> None:
        """Nothing can be said on the command line that the page does not have."""
        usage = Options({}).getUsage(width=200)
        options = set(re.findall(r"^ +--([a-z0-9-]+)=", usage, re.M))
        self.assertEqual(options, {setting.option for setting in SETTINGS})

    def test_every_key_of_an_upstream_has_its_row(self) -> None:
        """The keys are those that are read, and every attribute of an entry is read from one of them."""
        self.assertEqual(self.names("## Upstreams"), set(reading.KEYS))
        become = {"account": "credentials", "tag_rules": "tags", "blob_invalidation_time_s": "blob_invalidation_time"}
        keys = {become.get(attribute.name, attribute.name) for attribute in fields(Entry) if attribute.init}
        self.assertEqual(set(reading.KEYS), keys - {"is_listed"} | {"manifest_invalidation_time"})

    def test_every_key_below_has_its_row(self) -> None:
        """Keys of credentials, certificates and rules for tags."""
        text = self.section("### Credentials")
        self.assertEqual([key for key in read_account.KEYS if f"`{key}`" not in text], [])
        self.assertEqual(
            {name for cells in rows(text) for name in ticked(cells[0])},
            {name for form in read_account.FORMS for name in form},
        )
        self.assertEqual(self.names("### TLS"), set(read_tls.KEYS))
        self.assertEqual(self.names("### Tags"), set(read_tags.KEYS))

    def names(self, heading: str) -> set[str]:
        """Return the names in the first cells of the table below a heading."""
        return {name for cells in rows(self.section(heading)) for name in ticked(cells[0])}

    def test_the_examples_are_configurations(self) -> None:
        """What a person copies from the page starts, once the files that it names are there."""
        examples = re.findall(r"```yaml\n(.*?)```", self.page, re.S)
        self.assertEqual(len(examples), 13)
        for example in examples:
            config = self.loaded(example)
            self.assertIn(config.mode, example)
            names = {entry.namespace for entry in config.upstreams}
            self.assertEqual(set(re.findall(r"- namespace: (\S+)", example)) - names, set())

    def loaded(self, example: str) -> Config:
        """Load an example in a place where everything is that it names."""
        place = Path(self.mktemp()).absolute()
        place.mkdir()
        own = self_signed("r.example")
        contents = {".pem": own.cert_pem, ".key": own.key_pem, ".json": b"{}", "": b"secret\n"}
        for name in re.findall(r"/(?:etc|run|var)/[\w./-]+", example):
            (place / Path(name).name).write_bytes(contents[Path(name).suffix])
            example = example.replace(name, str(place / Path(name).name))
        (place / "docker-credential-gcr").touch(0o700)
        (place / "example.yaml").write_text(example, "utf-8")
        environ = {"PATH": str(place), "GHCR_TOKEN": "x", "GOOGLE_APPLICATION_CREDENTIALS": "x"}
        return load({"config": str(place / "example.yaml")}, environ)

    def test_the_example_of_the_environment_is_one(self) -> None:
        """As a shell would read it."""
        (example,) = re.findall(r"```sh\n(.*?)```", self.page, re.S)
        environ = dict(word.split("=", 1) for word in shlex.split(example))
        owners = [entry.namespace for entry in load({}, environ).upstreams if entry.account is not None]
        self.assertEqual(owners, ["docker.io", "quay.io"])

    def test_the_example_of_a_bucket_is_one(self) -> None:
        """Each of its lines reaches the configuration."""
        (example,) = [
            each for each in re.findall(r"```yaml\n(.*?)```", self.page, re.S) if "storage_backend: s3" in each
        ]
        config = self.loaded(example)
        assert config.s3 is not None
        self.assertEqual((config.s3.prefix, config.s3.tier_max_bytes), ("production", 50 * 2**30))
        self.assertEqual((config.redirect_above_bytes, len(config.no_redirect)), (64 * 2**20, 1))

    def test_the_fleet_of_the_readme_is_a_configuration(self) -> None:
        """What each machine of it is given."""
        (example,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
        config = load({}, dict(word.split("=", 1) for word in shlex.split(example)))
        assert config.s3 is not None
        self.assertEqual((config.s3.bucket, config.spool_dir), ("oci-cache", "/var/spool/txociproxy"))

    def test_every_right_that_is_used_is_told(self) -> None:
        """By the operations of the SDK that the code names, and by what a signed address is for."""
        (policy,) = re.findall(r"```json\n(.*?)```", self.page, re.S)
        told = {action for statement in json.loads(policy)["Statement"] for action in statement["Action"]}
        code = "".join(path.read_text("utf-8") for path in (ROOT / "txociproxy/storage/s3").glob("*.py"))
        used = set(re.findall(r"ask\(\s*\"([a-z0-9_]+)\"", code)) | set(re.findall(r"publish\(\"([a-z0-9_]+)\"", code))
        self.assertEqual(used - set(RIGHTS), set())
        self.assertEqual({right for name in used for right in RIGHTS[name]} - {"s3:CreateBucket"}, told)


class OtherProgramsTests(SynchronousTestCase):
    """The tables of similar programs' options."""

    def setUp(self) -> None:
        """Read the tables, by heading."""
        page = (ROOT / "docs/configuration.md").read_text("utf-8").partition("\n## Options of similar programs\n")[2]
        parts = [part.partition("\n") for part in page.split("\n### ")[1:]]
        self.tables = {heading: rows(text)[2:] for heading, _, text in parts}

    def answers(self) -> Iterable[tuple[str, str]]:
        """Iterate over what is ours, with its default."""
        return ((cells[1], cells[2]) for table in self.tables.values() for cells in table)

    def test_every_name_of_theirs_has_a_row(self) -> None:
        """With nothing left open."""
        self.assertEqual(list(self.tables), [heading for heading, *_ in THEIR_NAMES])
        for heading, *groups in THEIR_NAMES:
            written = {name for cells in self.tables[heading] for name in ticked(cells[0])}
            self.assertEqual({name for group in groups for name in group} - written, set())
            self.assertEqual({len(cells) for cells in self.tables[heading]}, {3})

    def test_every_answer_is_of_a_known_kind(self) -> None:
        """An option, a key, a word for word the same, or a reason."""
        kinds = (
            r"`--",
            r"keys? `",
            r"not offered, because \w",
            r"read by the AWS SDK",
            r"`make run`",
            r"`ociproxy (--version|healthcheck)`",
            r"in `deploy/",
            r"`UPSTREAM_CREDENTIALS`",
        )
        self.assertEqual([ours for ours, _ in self.answers() if not re.match("|".join(kinds), ours)], [])

    def test_options_and_keys_are_there_with_their_defaults(self) -> None:
        """None that was renamed, none that was never built."""
        settings = {f"--{setting.option}": setting for setting in SETTINGS}
        for ours, default in self.answers():
            if ours.startswith("`--"):
                setting = settings[ticked(ours)[0]]
                self.assertEqual(default, "–" if setting.default is None else f"`{setting.default}`", ours)
            elif ours.startswith("key"):
                self.assertIn(ticked(ours)[0], reading.KEYS)


class LinkTests(SynchronousTestCase):
    """All documents."""

    def test_links_between_documents_lead_somewhere(self) -> None:
        """Every relative link names a file of the tree."""
        broken = [
            f"{document.name}: {target}"
            for document in DOCUMENTS
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
            if not (document.parent / target).exists()
        ]
        self.assertEqual(broken, [])

    def test_paths_of_the_code_exist(self) -> None:
        """A file that a document names is there; a renamed one is renamed there too."""
        pattern = re.compile(r"`((?:txociproxy|tests|docs|twisted)/[A-Za-z0-9_./-]+)`")
        broken = [
            f"{document.name}: {name}"
            for document in DOCUMENTS
            for name in pattern.findall(document.read_text("utf-8"))
            if not (ROOT / name).exists()
        ]
        self.assertEqual(broken, [])

    def test_the_changelog_has_this_version(self) -> None:
        """What is released is described."""
        self.assertIn(f"## {__version__}", (ROOT / "CHANGELOG.md").read_text("utf-8"))
