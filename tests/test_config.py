"""Options, environment and file become one Config, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from txociproxy import quantities
from txociproxy.config import Config, ConfigError, load
from txociproxy.options import Options
from txociproxy.settings import SETTINGS

MODE = {"PROXY_MODE": "transparent"}
GIB = 2**30


class ConfigTestCase(SynchronousTestCase):
    """Loads configurations from nothing but what a test says."""

    def load(self, options: dict[str, Any] | None = None, file: str | None = None, **environ: str) -> Config:
        """Load with a mode in the environment, unless the test gives one."""
        if file is not None:
            environ["OCIPROXY_CONFIG"] = self.file(file)
        return load(options or {}, {**MODE, **environ}, is_root=True)

    def file(self, content: str) -> str:
        """Write a configuration file and return its path."""
        path = Path(self.mktemp())
        path.write_text(content, "utf-8")
        return str(path.absolute())

    def refusal(self, options: dict[str, Any] | None = None, file: str | None = None, **environ: str) -> str:
        """Return the sentence that a wrong configuration stops the start with; it is one line."""
        error = str(self.assertRaises(ConfigError, self.load, options, file, **environ))
        self.assertNotIn("\n", error)
        return error


class DefaultTests(ConfigTestCase):
    """What holds when nothing is said."""

    def test_the_documented_defaults(self) -> None:
        """The defaults are those of the seeds and of RULES A5, E8, G2 and H."""
        config = self.load()
        self.assertEqual((config.storage_backend, config.listen, config.log_level), ("fs", (":8080",), "info"))
        self.assertEqual((config.cache_tag_manifests, config.cache_latest_tag), (True, False))
        self.assertEqual((config.tag_fresh_s, config.tag_swr_s, config.stale_if_error_s), (3600, 0, None))
        self.assertEqual((config.min_free_fraction, config.min_free_bytes), (0.05, GIB))
        self.assertEqual((config.max_connections, config.max_ingest_memory_bytes), (4096, 256 * 2**20))

    def test_every_setting_reaches_the_config(self) -> None:
        """Each setting is an attribute of the same name, but for those that become something else."""
        become = {"min_free", "max_ingest_memory", "shipped_upstreams", "upstream_registry"}
        names = {setting.name for setting in SETTINGS} - become
        made = {"upstreams", "min_free_fraction", "min_free_bytes", "max_ingest_memory_bytes"}
        self.assertEqual({attribute.name for attribute in fields(Config)}, names | made)

    def test_the_root_directory(self) -> None:
        """systemd's directory, else the system's for root, else the user's (RULES G3)."""

        def root(is_root: bool, **environ: str) -> str:
            return load({}, {**MODE, **environ}, is_root=is_root).fs_root

        self.assertEqual(root(True, CACHE_DIRECTORY="/var/cache/a:/var/cache/b"), "/var/cache/a")
        self.assertEqual(root(True), "/var/cache/txociproxy")
        self.assertEqual(root(False, XDG_CACHE_HOME="/home/u/c"), "/home/u/c/txociproxy")
        self.assertEqual(root(False, HOME="/home/u"), "/home/u/.cache/txociproxy")

    def test_the_shipped_table(self) -> None:
        """The well-known registries are there, and Docker Hub is the default (RULES B6)."""
        config = self.load()
        self.assertEqual(config.default_namespace, "docker.io")
        self.assertIn("ghcr.io", [entry.namespace for entry in config.upstreams])


class PrecedenceTests(ConfigTestCase):
    """Who wins."""

    def test_option_then_environment_then_file_then_default(self) -> None:
        """Each source hides those after it."""
        file = "tag_fresh_s: 3\ntag_swr_s: 3\nrange_miss: fill\nsilence_timeout_s: 3\n"
        config = self.load({"tag-fresh-s": "1", "listen": []}, file, OCIPROXY_TAG_FRESH_S="2", OCIPROXY_TAG_SWR_S="2")
        self.assertEqual((config.tag_fresh_s, config.tag_swr_s), (1, 2))
        self.assertEqual((config.silence_timeout_s, config.range_miss), (3, "fill"))
        self.assertEqual(config.connect_timeout_s, 10)

    def test_an_empty_variable_is_absent(self) -> None:
        """Compose files pass empty variables on."""
        self.assertEqual(self.load(LISTEN_ADDR="").listen, (":8080",))

    def test_several_doors(self) -> None:
        """The environment separates by commas, the file has a list, the option repeats."""
        doors = ("127.0.0.1:1", "[::1]:2")
        self.assertEqual(self.load(LISTEN_ADDR="127.0.0.1:1, [::1]:2").listen, doors)
        self.assertEqual(self.load(file="listen: ['127.0.0.1:1', '[::1]:2']").listen, doors)
        self.assertEqual(self.load({"listen": [*doors]}, LISTEN_ADDR=":3").listen, doors)

    def test_an_option_names_the_file(self) -> None:
        """--config wins over OCIPROXY_CONFIG."""
        options = {"config": self.file("log_level: warn")}
        self.assertEqual(self.load(options, "log_level: debug").log_level, "warn")

    def test_kubernetes_variables_of_a_service_are_no_settings(self) -> None:
        """A Service that is named ociproxy puts its addresses into the environment of all its neighbours."""
        self.load(
            OCIPROXY_SERVICE_HOST="10.0.0.1",
            OCIPROXY_SERVICE_PORT="80",
            OCIPROXY_SERVICE_PORT_HTTP="80",
            OCIPROXY_PORT="tcp://10.0.0.1:80",
            OCIPROXY_PORT_80_TCP="tcp://10.0.0.1:80",
            OCIPROXY_PORT_80_TCP_ADDR="10.0.0.1",
        )


class RefusalTests(ConfigTestCase):
    """One line names the place, the value and the remedy."""

    def test_no_mode_and_two_modes(self) -> None:
        """The mode is never guessed (RULES D6)."""
        self.assertIn("--mode transparent", str(self.assertRaises(ConfigError, load, {}, {}, True)))
        error = self.refusal({"mode": "authenticated"})
        self.assertEqual(error, "--mode: 'authenticated', but PROXY_MODE is 'transparent'; give one of them")
        self.assertEqual(self.load({"mode": "transparent"}).mode, "transparent")

    def test_what_is_not_built_says_so(self) -> None:
        """Nothing else is done instead."""
        self.assertIn("not built yet", self.refusal(PROXY_MODE="authenticated"))
        self.assertIn("not built yet", self.refusal(STORAGE_BACKEND="s3"))
        self.assertIn("not built yet", self.refusal(GENERATE_SELF_SIGNED_TLS="true"))

    def test_a_wrong_value_is_named_with_its_place(self) -> None:
        """The place is in the words of the person who wrote it."""
        self.assertEqual(
            self.refusal(CACHE_LATEST_TAG="maybe"),
            "CACHE_LATEST_TAG: 'maybe' is neither true nor false; write true, yes or 1, or false, no or 0",
        )
        self.assertRegex(self.refusal({"max-ingests": "0"}), r"^--max-ingests: '0' is not a cap; write ")
        self.assertRegex(self.refusal(file="tag_fresh_s: soon"), r"^tag_fresh_s in /.*: 'soon' is not a duration; ")

    def test_an_unknown_name_is_recognised(self) -> None:
        """What was meant is proposed."""
        self.assertIn("did you mean OCIPROXY_TAG_FRESH_S?", self.refusal(OCIPROXY_TAG_FRESH="1"))
        self.assertIn("did you mean PROXY_MODE?", self.refusal(OCIPROXY_PROXY_MOD="transparent"))
        self.assertIn("did you mean UPSTREAM_REGISTRY?", self.refusal(OCIPROXY_UPSTREAM_REGISTRY="x"))
        self.assertIn("did you mean upstreams?", self.refusal(file="upstream: []"))

    def test_a_file_that_is_none(self) -> None:
        """Missing, not YAML, not a mapping, the same key twice, a list where a value belongs."""
        self.assertIn("cannot be read (No such file", self.refusal({"config": "/nowhere/x.yaml"}))
        self.assertIn("is not YAML", self.refusal(file="a: [1\n"))
        self.assertIn("is not a mapping", self.refusal(file="- a"))
        self.assertIn("twice", self.refusal(file="log_level: info\nlog_level: warn"))
        self.assertIn("is not a single value", self.refusal(file="log_level: [info]"))
        self.assertIn("not a list", self.refusal(file="upstreams: {namespace: a.example}"))

    def test_a_key_file_must_be_there_and_long_enough(self) -> None:
        """A short key would be guessed, and its bytes are never shown."""
        self.assertIn("cannot be read", self.refusal(OCIPROXY_TOKEN_KEY_FILE="/nowhere"))
        error = self.refusal(OCIPROXY_TOKEN_KEY_FILE=self.file("hunter2"))
        self.assertIn("is too short", error)
        self.assertNotIn("hunter2", error)

    def test_a_password_in_a_url_is_not_shown(self) -> None:
        """Not even when the URL is refused for it."""
        for error in (
            self.refusal(UPSTREAM_REGISTRY="https://u:hunter2@r.example"),
            self.refusal(UPSTREAM_REGISTRY="u:hunter2@r.example"),
            self.refusal(OCIPROXY_PUBLIC_URL="https://u:hunter2/b@r.example"),
            self.refusal(OCIPROXY_PUBLIC_URL="https://u:a@hunter2@r.example"),
            self.refusal(OCIPROXY_PUBLIC_URL="https://u:hunter2@r.example"),
            self.refusal(file="upstreams: [{namespace: r.example, urls: ['https://u:hunter2@r.example']}]"),
        ):
            self.assertNotIn("hunter2", error)


class UpstreamTests(ConfigTestCase):
    """The table of namespaces (RULES B6)."""

    def _urls(self, config: Config, namespace: str) -> tuple[str, ...]:
        return next(entry.urls for entry in config.upstreams if entry.namespace == namespace)

    def test_the_file_extends_the_shipped_table_and_overrides_it(self) -> None:
        """An entry takes the place of the shipped one with its namespace."""
        config = self.load(
            file="upstreams:\n- {namespace: docker.io, urls: ['http://127.0.0.1:5101']}\n- {namespace: r.example}\n"
        )
        self.assertEqual(self._urls(config, "docker.io"), ("http://127.0.0.1:5101",))
        self.assertEqual(self._urls(config, "r.example"), ("https://r.example",))
        self.assertEqual(self._urls(config, "quay.io"), ("https://quay.io",))

    def test_the_shipped_table_can_be_left_out(self) -> None:
        """Then one upstream alone is the default."""
        config = self.load(file="shipped_upstreams: false\nupstreams: [{namespace: r.example}]")
        self.assertEqual([entry.namespace for entry in config.upstreams], ["r.example"])
        self.assertEqual(config.default_namespace, "r.example")

    def test_upstream_registry_is_a_namespace_or_a_url(self) -> None:
        """A URL makes an entry of its host, unless an entry leads there already."""
        self.assertEqual(self.load(UPSTREAM_REGISTRY="quay.io").default_namespace, "quay.io")
        self.assertEqual(self.load(UPSTREAM_REGISTRY="https://registry-1.docker.io").default_namespace, "docker.io")
        config = self.load(UPSTREAM_REGISTRY="http://127.0.0.1:5101")
        self.assertEqual(config.default_namespace, "127.0.0.1:5101")
        self.assertEqual(self._urls(config, "127.0.0.1:5101"), ("http://127.0.0.1:5101",))

    def test_timeouts_of_all_upstreams_count_where_an_entry_has_none(self) -> None:
        """An entry's own timeout wins."""
        config = self.load(
            file="silence_timeout_s: 7\n"
            "upstreams: [{namespace: r.example, silence_timeout_s: 9}, {namespace: s.example}]"
        )
        timeouts = {entry.namespace: entry.silence_timeout_s for entry in config.upstreams}
        self.assertEqual((timeouts["r.example"], timeouts["s.example"], timeouts["quay.io"]), (9, 7, 7))

    def test_wrong_upstreams_are_named(self) -> None:
        """Unknown default, the same namespace twice, an unknown key, two names for the default, a bad listener."""
        self.assertIn("is not in the table", self.refusal(UPSTREAM_REGISTRY="r.example"))
        twice = "upstreams: [{namespace: r.example}, {namespace: R.example.}]"
        self.assertIn("is in two upstreams", self.refusal(file=twice))
        self.assertIn("did you mean `urls`?", self.refusal(file="upstreams: [{namespace: r.example, url: x}]"))
        self.assertIn("give one", self.refusal(UPSTREAM_REGISTRY="quay.io", OCIPROXY_DEFAULT_NAMESPACE="ghcr.io"))
        self.assertIn(
            "upstreams[r.example].listen", self.refusal(file="upstreams: [{namespace: r.example, listen: x}]")
        )


class QuantityTests(SynchronousTestCase):
    """Text to values."""

    def test_durations(self) -> None:
        """Seconds without a unit, and the usual units."""
        words = ("0", "90", "1.5", "90s", "15m", "1h", "2 d", "1w")
        self.assertEqual([quantities.duration(word) for word in words], [0, 90, 1.5, 90, 900, 3600, 172800, 604800])
        self.assertIsNone(quantities.patience("unlimited"))
        self.assertRaises(ValueError, quantities.timeout, "0")

    def test_sizes(self) -> None:
        """Powers of 1024 and of 1000."""
        words = ("0", "512", "1KiB", "256MiB", "10GiB", "1.5 GB", "1k")
        sizes = [0, 512, 1024, 256 * 2**20, 10 * GIB, 1_500_000_000, 1024]
        self.assertEqual([quantities.size(word) for word in words], sizes)

    def test_space_that_stays_free(self) -> None:
        """A percentage is never less than 1 GiB; zero is nothing at all (RULES G2)."""
        self.assertEqual(quantities.min_free("5%"), quantities.MinFree(0.05, GIB))
        self.assertEqual(quantities.min_free("10GiB"), quantities.MinFree(0.0, 10 * GIB))
        for nothing in ("0", "0%"):
            self.assertEqual(quantities.min_free(nothing), quantities.MinFree(0.0, 0))

    def test_public_urls(self) -> None:
        """Only scheme, host and port; no slash is left at the end."""
        self.assertEqual(quantities.base_url("https://cache.example:8443/"), "https://cache.example:8443")
        for wrong in ("cache.example", "ftp://cache.example", "https://cache.example/v2", "https://a@cache.example"):
            self.assertRaises(ValueError, quantities.base_url, wrong)

    @settings(deadline=None)
    @given(st.text(max_size=40))
    def test_no_text_does_more_than_be_refused(self, text: str) -> None:
        """Any text is a value or a ValueError with a remedy, for every reader."""
        for setting in SETTINGS:
            try:
                setting.read(text)
            except ValueError as error:
                self.assertIn("; write ", str(error))


class OptionsTests(SynchronousTestCase):
    """The command line."""

    def test_options_make_the_config(self) -> None:
        """Parsing leaves a whole configuration."""
        options = Options({})
        options.parseOptions(["--mode=transparent", "--listen", ":1", "--listen=:2", "--min-free=0"])
        self.assertEqual((options.config.listen, options.config.min_free_bytes), ((":1", ":2"), 0))

    def test_an_error_is_one_line_and_the_usage_steps_back(self) -> None:
        """Sixty lines of options would hide the sentence."""
        options = Options({})
        error = str(self.assertRaises(UsageError, options.parseOptions, ["--mode=transparent", "--tag-frsh-s=1"]))
        self.assertEqual(error, "option --tag-frsh-s not recognized; did you mean --tag-fresh-s?")
        self.assertEqual(options.getUsage().count("\n"), 0)

    def test_help_explains_every_option(self) -> None:
        """Each option stands there with its variable."""
        usage = Options({}).getUsage(width=1000)
        for setting in SETTINGS:
            self.assertIn(f"--{setting.option}=", usage)
            self.assertIn(f"[{setting.variable}]", usage)
            self.assertIn(setting.meaning, usage)
