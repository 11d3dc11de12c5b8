"""Options, environment and file become one Config, or one clear sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.upstreams.certificates import self_signed
from txociproxy import quantities
from txociproxy.buckets import BUCKET_SETTINGS
from txociproxy.config import Config, ConfigError, load, unused_credentials
from txociproxy.options import Options
from txociproxy.settings import SETTINGS
from txociproxy.upstreams.logins.accounts import DockerConfig, Password

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
        """Each setting is an attribute of the same name, but for those that become something else, and the rest."""
        become = {
            "min_free",
            "max_ingest_memory",
            "drain_timeout",
            "shipped_upstreams",
            "upstream_registry",
            *BUCKET_SETTINGS,
        }
        names = {setting.name for setting in SETTINGS} - become
        made = {"upstreams", "min_free_fraction", "min_free_bytes", "max_ingest_memory_bytes", "outbound"}
        made |= {"s3", "spool_dir", "redirect_above_bytes", "no_redirect", "drain_timeout_s", "journal_stream"}
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

    def test_a_wrong_value_is_named_with_its_place(self) -> None:
        """The place is in the words of the person who wrote it."""
        self.assertEqual(
            self.refusal(CACHE_LATEST_TAG="maybe"),
            "CACHE_LATEST_TAG: 'maybe' is neither true nor false; write true, yes or 1, or false, no or 0",
        )
        self.assertRegex(self.refusal({"max-ingests": "0"}), r"^--max-ingests: '0' is not a cap; write ")
        self.assertRegex(self.refusal(file="tag_fresh_s: soon"), r"^/.*:1: tag_fresh_s: 'soon' is not a duration; ")

    def test_an_unknown_name_is_recognised(self) -> None:
        """What was meant is proposed."""
        self.assertIn("did you mean OCIPROXY_TAG_FRESH_S?", self.refusal(OCIPROXY_TAG_FRESH="1"))
        self.assertIn("did you mean PROXY_MODE?", self.refusal(OCIPROXY_PROXY_MOD="transparent"))
        self.assertIn("did you mean PROXY_MODE?", self.refusal(OCIPROXY_MODE="transparent"))
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


class AccessTests(ConfigTestCase):
    """Who may read what: the mode, and what hangs on it."""

    def test_both_modes_are_there(self) -> None:
        """The mode is a word of two."""
        self.assertEqual(self.load(PROXY_MODE="Authenticated").mode, "authenticated")
        self.assertIn("write transparent or authenticated", self.refusal(PROXY_MODE="open"))

    def test_unlisted_follows_the_mode_unless_said(self) -> None:
        """Public in transparent mode, deny in authenticated mode; both can be said in both."""
        self.assertEqual(self.load().unlisted, "public")
        self.assertEqual(self.load(PROXY_MODE="authenticated").unlisted, "deny")
        self.assertEqual(self.load(OCIPROXY_UNLISTED="deny").unlisted, "deny")
        self.assertEqual(self.load({"unlisted": "public"}, PROXY_MODE="authenticated").unlisted, "public")

    def test_an_outbound_proxy_closes_the_unlisted(self) -> None:
        """Behind it no address can be checked (RULES F1)."""
        config = self.load(HTTPS_PROXY="http://u:hunter2@proxy.example:3128")
        self.assertEqual((config.unlisted, config.outbound.is_set), ("deny", True))
        self.assertNotIn("hunter2", repr(config))
        error = self.refusal(HTTPS_PROXY="http://proxy.example", OCIPROXY_UNLISTED="public")
        self.assertRegex(error, "^OCIPROXY_UNLISTED: 'public' is not possible with an outbound proxy .*; use deny")
        self.assertFalse(self.load().outbound.is_set)

    def test_a_wrong_outbound_proxy_names_its_variable_only(self) -> None:
        """Its value may have a password in it."""
        error = self.refusal(HTTPS_PROXY="https://u:hunter2@proxy.example")
        self.assertRegex(error, "(?i)^https_proxy: ")
        self.assertNotIn("hunter2", error)

    def test_kept_admissions_are_for_authenticated_mode(self) -> None:
        """Elsewhere nobody is asked, and the person expects something else."""
        self.assertEqual(self.load(PROXY_MODE="authenticated", OCIPROXY_AUTH_CACHE_S="5m").auth_cache_s, 300)
        self.assertEqual(self.load(OCIPROXY_AUTH_CACHE_S="0s").auth_cache_s, 0)
        error = self.refusal(OCIPROXY_AUTH_CACHE_S="1")
        self.assertEqual(
            error, "OCIPROXY_AUTH_CACHE_S: counts in authenticated mode only; remove it, or use mode authenticated"
        )

    def test_a_store_is_adopted_only_when_said(self) -> None:
        """It changes who may read."""
        self.assertFalse(self.load().adopt_store)
        self.assertTrue(self.load({"adopt-store": "yes"}).adopt_store)

    def test_own_logins_are_unused_in_authenticated_mode(self) -> None:
        """The service can say so; it is no error."""
        file = "upstreams: [{namespace: r.example, credentials: {username: u, password: p}}]"
        self.assertEqual(unused_credentials(self.load(file=file, PROXY_MODE="authenticated")), ["r.example"])
        self.assertEqual(unused_credentials(self.load(file=file)), [])
        self.assertEqual(unused_credentials(self.load(PROXY_MODE="authenticated")), [])

    def test_a_mode_that_nobody_says_can_be_given_for_checks(self) -> None:
        """It is weaker than every place, and its rules come with it."""
        self.assertEqual(load({}, {}, True, "authenticated").mode, "authenticated")
        self.assertEqual(load({}, MODE, True, "authenticated").mode, "transparent")


class UpstreamCredentialsTests(ConfigTestCase):
    """``UPSTREAM_CREDENTIALS``: a map in JSON."""

    def account(self, namespace: str, content: str, file: str | None = None) -> object:
        """Return the account of a namespace."""
        config = self.load(file=file, UPSTREAM_CREDENTIALS=content)
        return next(entry.account for entry in config.upstreams if entry.namespace == namespace)

    def test_namespaces_are_canonical(self) -> None:
        """Docker Hub's other names mean docker.io; an empty variable is absent; others have none."""
        content = '{"index.docker.io": {"username": "u", "password": "p"}}'
        self.assertEqual(self.account("docker.io", content), Password("u", "p"))
        self.assertIsNone(self.account("ghcr.io", content))
        self.assertIsNone(self.account("docker.io", " "))

    def test_an_entry_that_has_credentials_too_is_an_error(self) -> None:
        """Both places are named, and nothing of what stands there."""
        file = "upstreams:\n- namespace: r.example\n  credentials:\n    {username: u, password: hunter2}\n"
        error = self.refusal(file=file, UPSTREAM_CREDENTIALS='{"R.example": {"username": "u", "password": "hunter3"}}')
        self.assertRegex(
            error, r"^UPSTREAM_CREDENTIALS: r.example has .* at /.*:3: upstreams\[r.example\].credentials too; keep one"
        )
        self.assertNotIn("hunter", error)

    def test_a_namespace_must_be_in_the_table(self) -> None:
        """A slip would leave the upstream anonymous."""
        error = self.refusal(UPSTREAM_CREDENTIALS='{"r.example": {"username": "u", "password": "hunter2"}}')
        self.assertEqual(
            error, "UPSTREAM_CREDENTIALS: r.example is not an upstream; add {namespace: r.example} to upstreams"
        )

    def test_the_entry_of_upstream_registry_counts(self) -> None:
        """It is in the table as well."""
        config = self.load(
            UPSTREAM_REGISTRY="https://r.example", UPSTREAM_CREDENTIALS='{"r.example":{"username":"u","password":"p"}}'
        )
        self.assertEqual(config.upstreams[-1].account, Password("u", "p"))

    def test_what_is_not_such_a_map_is_refused_without_its_value(self) -> None:
        """Each slip that a person makes in one line of JSON."""
        for content in (
            "hunter2",
            '["hunter2"]',
            '{"docker.io": "hunter2"}',
            '{"docker.io": {"username": "hunter2"}}',
            '{"docker.io": {"username": "u", "password": "hunter2", "hunter2": 1}}',
            '{"docker.io": {"username": "u", "password": 2}}',
            '{"docker.io": {"username": "u", "password": ""}}',
            '{"docker.io": {"username": "u:hunter2", "password": "hunter2"}}',
            '{"docker.io": {"username": "u", "password": "hunter2\\n"}}',
            '{"docker.io": {"username": "u", "password": "a"}, "docker.io": {"username": "u", "password": "hunter2"}}',
            '{"docker.io": {"username": "u", "password": "a"}, "Docker.io": {"username": "u", "password": "hunter2"}}',
            '{"hunter2 ": {"username": "u", "password": "p"}}',
            "[" * 100_000,
        ):
            error = self.refusal(UPSTREAM_CREDENTIALS=content)
            self.assertTrue(error.startswith("UPSTREAM_CREDENTIALS: "), error)
            self.assertTrue("; write {" in error or "; keep one" in error, error)
            self.assertNotIn("hunter2", error)


class LineTests(ConfigTestCase):
    """Errors of the file name its line."""

    def line(self, content: str, **environ: str) -> str:
        """Return an error from its line number on."""
        return self.refusal(None, content, **environ).partition("/temp:")[2]

    def test_settings(self) -> None:
        """Wrong, unknown, too many, twice; comments and empty lines count."""
        self.assertRegex(self.line("# a\n\nlog_level: info\ntag_fresh_s: soon\n"), "^4: tag_fresh_s: 'soon' is not")
        self.assertRegex(self.line("log_level: info\ntag_frsh_s: 1\n"), "^2: tag_frsh_s: not known; did you mean")
        self.assertRegex(self.line("a: &x {b: 1}\nlog_level: [info]"), "^1: a: not known")
        self.assertRegex(self.line("mode: transparent\nlog_level: [info]"), "^2: log_level: .* not a single value")
        self.assertRegex(self.line("log_level: info\nmode: x\nlog_level: warn"), "^3: .*log_level is there twice")
        self.assertRegex(self.line("\n\nlisten: []"), "^3: listen: an empty list")
        self.assertRegex(self.line("\nupstreams: {}"), "^2: upstreams: not a list")
        self.assertRegex(self.line("a: [1\n"), "^2: the file is not YAML")
        self.assertRegex(self.line("mode: transparent\nunlisted: public\n", HTTPS_PROXY="http://p.example"), "^2: unl")

    def test_upstreams(self) -> None:
        """The line of the key, however deep; of the item where a key is missing or two claim the same."""
        for content, expected in (
            ("- namespace: r.example\n  library: 7\n", r"3: upstreams\[r.example\].library: 7 must be"),
            ("- namespace: r.example\n\n  tls:\n    key: /k\n", r"5: upstreams\[r.example\].tls.key: needs `cert`"),
            ("- namespace: r.example\n  tls:\n    kez: /k\n", r"4: upstreams\[r.example\].tls.\?: unknown key"),
            (
                "- namespace: r.example\n  tags:\n  - match: '*'\n  - match: '*:x'\n    fresh_s: soon\n",
                r"6: upstreams\[r.example\].tags\[1\].fresh_s: 'soon' must be a duration",
            ),
            ("- namespace: r.example\n- library: true\n", r"3: upstreams\[\?\]: an upstream needs `namespace`"),
            ("- namespace: r.example\n- r.example\n", r"3: upstreams: an upstream must be a mapping"),
            ("- {namespace: a.example}\n- {namespace: a.example}\n", r"3: upstreams: namespace 'a.example' is in two"),
            ("- namespace: a.example\n  listen: zz\n", r"3: upstreams\[a.example\].listen: "),
            ("- namespace: a.example\n  name: zz\n", r"3: upstreams\[a.example\].name: unknown key; write `namesp"),
            (
                "- &a\n  namespace: a.example\n  listen: ':1'\n- <<: *a\n  namespace: b.example\n  library: 7\n",
                r"7: upstreams\[b.example\].library: ",
            ),
        ):
            self.assertRegex(self.line("upstreams:\n" + content), f"^{expected}")

    def test_a_key_that_is_not_written_has_the_line_around_it(self) -> None:
        """The key of a certificate is looked for in its own file, unless said."""
        path = self.file(self_signed("a.example").cert_pem.decode())
        error = self.line(f"upstreams:\n- namespace: a.example\n  library: true\n  tls:\n    cert: {path}\n")
        self.assertRegex(error, r"^4: upstreams\[a.example\].tls.key: ")

    def test_a_default_that_is_not_there_names_who_said_it(self) -> None:
        """It may be far from the table."""
        self.assertRegex(self.line("\nupstream_registry: r.example"), "^2: upstream_registry: the default upstream")
        self.assertRegex(self.refusal({"default-namespace": "r.example"}), "^--default-namespace: the default upstream")

    def test_a_list_alone_is_the_file_of_another_program(self) -> None:
        """It is told where it belongs."""
        self.assertRegex(
            self.line("- name: r.example"), "^1: the file is not a mapping; put 'upstreams:' above the list"
        )

    def test_yaml_that_cannot_be_built_is_one_line(self) -> None:
        """A date that is none, a key that cannot be one, an endless depth, a reference to what is around."""
        for content in ("a: 2024-13-45", "? [a]\n: b", "[" * 5000, "? {a: b}\n: c", "log_level: !!int x"):
            self.assertIn("not YAML", self.refusal(file=content))
        self.assertIn("must be a mapping", self.refusal(file="upstreams: &a [*a]"))


class SecretTests(ConfigTestCase):
    """Whatever slip is made with a password, no error shows it."""

    def test_no_error_shows_what_may_be_a_password(self) -> None:
        """Missing spaces, wrong keys, wrong kinds, YAML's signs at its beginning, a password where a path belongs."""
        for slip in (
            "  credentials: hunter2",
            "  credentials: [hunter2]",
            "  credentials: {username:u, password:hunter2}",
            "  credentials: {username: u, password:hunter2}",
            "  credentials: {username: u, hunter2}",
            "  credentials: {username: u, 4711: 1}",
            "  credentials: {user: u, pass: hunter2}",
            "  credentials: {username: u, password: [hunter2]}",
            "  credentials: {username: u, password: 4711}",
            "  credentials: {username: 'u:hunter2', password: x}",
            '  credentials: {username: u, password: "hunter2\\n"}',
            "  credentials: {username: u, password: *hunter2}",
            "  credentials: {username: u, password: !hunter2 x}",
            "  credentials: {username: u, password: !<hunter2> x}",
            "  credentials: {username: u, password: !<hun'ter\"hunter2> x}",
            "  credentials: {username: u, password: !hunter2!x y}",
            "  credentials: {username: u, password: hunter2, docker_config: x}",
            "  credentials: {username: u, password_file: hunter2}",
            "  credentials: {username: u, password_file: [hunter2]}",
            "  credentials: {username: u, password_env: hunter2}",
            "  credentials: {username: u, password_env: 'hunter2!'}",
            "  credentials: {docker_config: hunter2}",
            "  credentials: {helper: hunter2}",
            "  credentials: {helper: 'hunter2/'}",
            "  credentials: {helper: x, environment: [hunter2]}",
            "  credentials: {helper: x, lifetime_s: hunter2}",
            "  credentials: {ecr: hunter2}",
            "  credentials: {ecr: {hunter2: x}}",
            "  credentials: {ecr: {region: [hunter2]}}",
            "  password: hunter2",
            "  auth: {user: u, password: hunter2}",
            "  tls: hunter2",
            "  tls: {key: '-----BEGIN hunter2'}",
            "  tls: {cert: x, key: [hunter2]}",
            "  tls: {hunter2: x}",
            "  tls: {verify: hunter2}",
            "  {password:hunter2}",
        ):
            error = self.refusal(file=f"upstreams:\n- namespace: r.example\n{slip}\n")
            self.assertNotIn("hunter2", error)
            self.assertNotIn("4711", error)
        for whole in (
            "upstreams: [{namespace: r.example, password:hunter2}]",
            "password:hunter2: 1",
            "- password:hunter2",
        ):
            self.assertNotIn("hunter2", self.refusal(file=whole))

    def test_no_config_prints_a_password(self) -> None:
        """Neither of a login nor of a helper's environment."""
        config = self.load(
            file="upstreams:\n- {namespace: a.example, credentials: {username: u, password: hunter2}}\n"
            f"- {{namespace: b.example, credentials: {{docker_config: {self.file('{}')}, environment: [TOKEN]}}}}\n",
            TOKEN="hunter2",
        )
        self.assertIn(("TOKEN", "hunter2"), cast(DockerConfig, config.upstreams[-1].account).environment)
        self.assertNotIn("hunter2", repr(config))
        self.assertNotIn("hunter2", repr(config.upstreams[-1].account))


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
        self.assertIn("did you mean `urls`?", self.refusal(file="upstreams: [{namespace: r.example, urlss: x}]"))
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
