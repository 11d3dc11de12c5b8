"""What is said about a bucket becomes one value, or one clear sentence."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from attrs import evolve, fields
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_config import ConfigTestCase
from txociproxy import bucket_values
from txociproxy.buckets import BUCKET_SETTINGS, chosen_bucket
from txociproxy.config import Config, ConfigError
from txociproxy.options import Options
from txociproxy.settings import SETTINGS
from txociproxy.sources import Said
from txociproxy.storage.s3.settings import S3Settings

MIB = 2**20


class BucketTestCase(ConfigTestCase):
    """Loads configurations with a bucket."""

    def s3(self, **environ: str) -> S3Settings:
        """Return what becomes of an environment."""
        found = self.load(None, None, STORAGE_BACKEND="s3", **environ).s3
        assert found is not None
        return found


class ValueTests(BucketTestCase):
    """What reaches the storage."""

    def test_without_a_bucket_there_is_none(self) -> None:
        """Content is kept in a directory unless said (RULES H)."""
        self.assertIsNone(self.load().s3)

    def test_the_documented_defaults(self) -> None:
        """The defaults are those of the value too, so that nobody means something else by silence."""
        self.assertEqual(self.s3(), S3Settings())
        config = self.load(STORAGE_BACKEND="s3")
        self.assertEqual((config.redirect_above_bytes, config.no_redirect), (0, ()))

    def test_the_names_of_the_environment(self) -> None:
        """Every field of the value is said by one variable; none is lost or confused with another."""
        said: dict[str, tuple[str, str, Any]] = {
            "S3_BUCKET": ("images", "bucket", "images"),
            "S3_PREFIX": ("/team/cache/", "prefix", "team/cache"),
            "S3_FORCE_PATH_STYLE": ("false", "path_style", False),
            "S3_LIFECYCLE_DAYS": ("0", "lifecycle_days", 0),
            "OCIPROXY_S3_ENDPOINT_URL": ("http://10.0.0.5:9000", "endpoint_url", "http://10.0.0.5:9000"),
            "AWS_REGION": ("eu-central-1", "region", "eu-central-1"),
            "S3_PUBLIC_ENDPOINT_URL": ("https://S3.example/", "public_endpoint_url", "https://s3.example"),
            "OCIPROXY_S3_URL_LIFE_S": ("5m", "url_life_s", 300),
            "OCIPROXY_S3_PATIENCE_S": ("3", "patience_s", 3),
            "OCIPROXY_SPOOL_MAX": ("1GiB", "spool_max_bytes", 1024 * MIB),
            "OCIPROXY_S3_UPLOADS": ("7", "uploads", 7),
            "OCIPROXY_DISK_TIER": ("2GiB", "tier_max_bytes", 2048 * MIB),
            "OCIPROXY_S3_LEASE_WAIT_S": ("10", "lease_wait_s", 10),
        }
        for variable, (text, name, value) in said.items():
            change: dict[str, Any] = {name: value}
            self.assertEqual(self.s3(**{variable: text}), evolve(S3Settings(), **change), variable)
        self.assertEqual({name for _, name, _ in said.values()}, {each.name for each in fields(S3Settings)})

    def test_an_address_is_good_for_less_time_where_each_pull_is_asked_for(self) -> None:
        """Two minutes in authenticated mode (RULES D4), unless said."""
        self.assertEqual(self.s3(PROXY_MODE="authenticated").url_life_s, 120)
        self.assertEqual(self.s3(PROXY_MODE="authenticated", OCIPROXY_S3_URL_LIFE_S="10m").url_life_s, 600)

    def test_where_content_waits(self) -> None:
        """Below what would be the root, or where it is said; with or without a bucket."""
        self.assertEqual(self.load(FS_ROOT="/srv/x").spool_dir, "/srv/x/spool")
        self.assertEqual(self.load().spool_dir, "/var/cache/txociproxy/spool")
        self.assertEqual(self.load(STORAGE_BACKEND="s3", OCIPROXY_SPOOL_DIR="/srv/y").spool_dir, "/srv/y")

    def test_who_is_redirected(self) -> None:
        """By size and by network; the file has a list, the option repeats."""
        for text, above_bytes in (("always", 0), ("Never", None), (">64MiB", 64 * MIB), ("> 1000", 1000)):
            config = self.load(STORAGE_BACKEND="s3", OCIPROXY_REDIRECT=text)
            self.assertEqual(config.redirect_above_bytes, above_bytes, text)
        networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.0.2.7/32"))
        for options, file, variable in (
            ({"no-redirect": ["10.0.0.0/8", "fd00::/8", "192.0.2.7"]}, "{}", ""),
            ({}, "no_redirect: [10.0.0.0/8, 'fd00::/8', 192.0.2.7]", ""),
            ({}, "{}", "10.0.0.0/8, fd00::/8,192.0.2.7"),
        ):
            config = self.load(options, file, STORAGE_BACKEND="s3", OCIPROXY_NO_REDIRECT=variable)
            self.assertEqual(config.no_redirect, networks)

    def test_the_option_repeats(self) -> None:
        """On a real command line."""
        options = Options({"STORAGE_BACKEND": "s3"})
        options.parseOptions(["--mode=transparent", "--no-redirect", "10.0.0.0/8", "--no-redirect=fd00::/8"])
        self.assertEqual(options.config.no_redirect, (ip_network("10.0.0.0/8"), ip_network("fd00::/8")))

    def test_no_credential_is_in_the_configuration(self) -> None:
        """They stay with the SDK."""
        config = self.load(STORAGE_BACKEND="s3", AWS_ACCESS_KEY_ID="hunter1", AWS_SECRET_ACCESS_KEY="hunter2")
        self.assertNotIn("hunter", repr(config))


class RefusalTests(BucketTestCase):
    """One line names the place, the value and the remedy."""

    def test_the_sdk_must_be_there(self) -> None:
        """It is an extra; the line says how to get it, and it is looked for without being imported."""
        values: dict[str, Any] = dict.fromkeys(BUCKET_SETTINGS) | {"storage_backend": "s3", "mode": "transparent"}
        said = {"storage_backend": Said("--storage-backend", ("s3",))}
        looked: list[str] = []

        def find(name: str) -> None:
            looked.append(name)

        error = str(self.assertRaises(ConfigError, chosen_bucket, values, said, {}, {}, find))
        self.assertRegex(error, r"^--storage-backend: s3 needs the AWS SDK.*; write pip install 'txociproxy\[aws\]'$")
        self.assertEqual(looked, ["boto3"])

    def test_wrong_values(self) -> None:
        """Each is refused where it stands, by what a person must change."""
        for variable, texts, words in (
            ("S3_BUCKET", ("a", "a b", "a..b", "-ab", "x" * 64, "a/b"), "is not the name of a bucket; write 3 to 63"),
            ("S3_PREFIX", ("a//b", "a/../b", "./a", "a\x01b", "é" * 257), "cannot stand in front of keys; write up to"),
            ("S3_LIFECYCLE_DAYS", ("28d", "-1", "1.5", "123456"), "is not a number of days; write a whole number"),
            ("AWS_REGION", ("eu central", "http://x"), "is not a region; write for example"),
            ("OCIPROXY_S3_URL_LIFE_S", ("29", "13h", "soon"), "; write "),
            ("OCIPROXY_S3_PATIENCE_S", ("0",), "is no time to wait"),
            ("OCIPROXY_S3_UPLOADS", ("0", "13", "x", "²"), "is not from 1 to 12; write a whole number"),
            ("OCIPROXY_SPOOL_MAX", ("0", "much"), "; write "),
            ("OCIPROXY_REDIRECT", ("sometimes", ">", ">x", "64MiB"), "is not known; write always, never, or a size"),
            ("OCIPROXY_NO_REDIRECT", ("10.0.0.1/8", "example.com", "10.0.0.0/8,,"), "is not a network; write for"),
        ):
            for text in texts:
                error = self.refusal(None, None, STORAGE_BACKEND="s3", **{variable: text})
                self.assertTrue(error.startswith(f"{variable}: "), error)
                self.assertIn(words, error)

    def test_bounds_are_taken(self) -> None:
        """The least and the most."""
        for text, seconds in (("30", 30), ("12h", 43200)):
            self.assertEqual(self.s3(OCIPROXY_S3_URL_LIFE_S=text).url_life_s, seconds)
        self.assertEqual(self.s3(OCIPROXY_S3_UPLOADS="12").uploads, 12)
        self.assertEqual(self.s3(S3_BUCKET="a" * 63).bucket, "a" * 63)
        self.assertEqual(self.s3(S3_PREFIX="é" * 256).prefix, "é" * 256)

    def test_an_address_shows_no_password(self) -> None:
        """A server's address is scheme, host and port."""
        for variable in ("OCIPROXY_S3_ENDPOINT_URL", "S3_PUBLIC_ENDPOINT_URL"):
            for text in (
                "https://u:hunter2@s3.example",
                "https://u:[hunter2]@s3.example",
                "s3.example",
                "ftp://s3.example",
                "https://s3.example/bucket",
                "https://s3.example?x=hunter2",
                "https://s3.example:hunter2",
                "https://s3 .example",
            ):
                error = self.refusal(None, None, STORAGE_BACKEND="s3", **{variable: text})
                self.assertIn("is not the address of an S3 server; write https://s3.example.com or", error)
                if "@" in text:
                    self.assertNotIn("hunter2", error)

    def test_an_address_that_the_sdk_could_not_use_is_refused(self) -> None:
        """It would be an outage without end: our own setting takes its place, and without a bucket it is not ours."""
        for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
            for text in (
                "10.0.0.5:9000",
                "s3.example",
                "http://",
                "https://s3.example:x",
                "http://[fd00::5",
                "ftp://s3",
            ):
                error = self.refusal(None, None, STORAGE_BACKEND="s3", **{variable: text})
                self.assertTrue(error.startswith(f"{variable}: '{text}' is not the address of an S3 server"), error)
                self.s3(OCIPROXY_S3_ENDPOINT_URL="http://10.0.0.5:9000", **{variable: text})
                self.assertIsNone(self.load(None, None, **{variable: text}).s3)
            error = self.refusal(None, None, STORAGE_BACKEND="s3", **{variable: "http://u:hunter2@:9000"})
            self.assertNotIn("hunter2", error)
            self.assertIsNone(self.s3(**{variable: "https://s3.example/storage/v1"}).endpoint_url)
        # The first one counts, and an empty one is none.
        self.s3(AWS_ENDPOINT_URL_S3="http://10.0.0.5:9000", AWS_ENDPOINT_URL="nonsense")
        self.s3(AWS_ENDPOINT_URL_S3="", AWS_ENDPOINT_URL="http://10.0.0.5:9000")

    def test_what_has_no_effect_is_refused_where_it_was_said_for_this_proxy(self) -> None:
        """In options and file, at its line; an environment may be that of many."""
        error = self.refusal({"s3-bucket": "images"})
        self.assertEqual(
            error, "--s3-bucket: counts with storage_backend s3 only; remove it, or use storage_backend s3"
        )
        self.assertRegex(self.refusal(file="log_level: info\ndisk_tier: 1GiB\n"), r":2: disk_tier: counts with ")
        self.assertIn("no-redirect", self.refusal({"no-redirect": ["10.0.0.0/8"]}))
        self.assertIsNone(self.load(S3_BUCKET="images", AWS_REGION="eu-central-1", OCIPROXY_REDIRECT="never").s3)
        self.assertIsNotNone(self.load({"s3-bucket": "images", "storage-backend": "s3"}).s3)

    def test_every_setting_of_a_bucket_is_known_as_one(self) -> None:
        """Those that name S3 in their own words or in their meaning, and what is on the way there."""
        named = {setting.name for setting in SETTINGS if setting.name.startswith("s3_")}
        named |= {setting.name for setting in SETTINGS if setting.meaning.startswith("With s3")}
        self.assertEqual({*BUCKET_SETTINGS}, named | {"redirect", "no_redirect"})

    @settings(deadline=None)
    @given(st.text(max_size=40))
    def test_a_prefix_that_is_taken_is_one_path(self, text: str) -> None:
        """Whatever is taken has no empty part, no way up, and can be sent."""
        try:
            prefix = bucket_values.key_prefix(text)
        except ValueError:
            return
        self.assertEqual(str(Path(prefix)), prefix or ".")
        self.assertFalse({".."} & {*prefix.split("/")})
        self.assertLessEqual(len(prefix.encode("utf-8")), bucket_values.MAX_PREFIX_BYTES)


class SharedTests(BucketTestCase):
    """What a bucket changes for others."""

    def test_a_file_with_a_bucket_is_checked_without_one(self) -> None:
        """Nobody is asked, and no credential is needed."""
        config = self.load(file="storage_backend: s3\ns3_bucket: images\nredirect: '>1MiB'\n")
        self.assertIsInstance(config, Config)
        self.assertEqual(config.redirect_above_bytes, MIB)
