"""Slips in a configuration: each is one line that names its place, shows no password, and holds up nobody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_config import ConfigTestCase
from txociproxy.config import ConfigError
from txociproxy.upstreams.logins.accounts import Password

TAGS = ("int", "bool", "float", "timestamp", "binary", "map", "seq", "str", "null", "set", "omap", "pairs", "merge")
VALUES = ("''", "'-'", "foo", "[a]", "{a: b}", "2001-99-99", "x y", "0x", "1:99", "-.inf", "9" * 5000)
PLACES = ("tag_fresh_s: {}", "upstreams: {}", "{}", "upstreams:\n- {}", "upstreams:\n- tls: {}", "{{{}: x}}")


class PlaceTests(ConfigTestCase):
    """Where it is."""

    def test_a_value_that_is_not_what_its_tag_says(self) -> None:
        """PyYAML ends some of them with other errors than its own; each has a line."""

        @settings(deadline=None, max_examples=400)
        @given(st.sampled_from(PLACES), st.sampled_from(TAGS), st.sampled_from(VALUES))
        def holds(place: str, tag: str, value: str) -> None:
            try:
                self.load(file="log_level: info\n" + place.format(f"!!{tag} {value}") + "\n")
            except ConfigError as error:
                self.assertRegex(str(error), r"^[^\n:]+:[1-9]\d*: [^\n]+$")

        holds()

    def test_a_value_that_cannot_be_built_names_its_line(self) -> None:
        """Not only that the file is wrong."""
        for value in ("2024-13-45", "!!int ''", "!!bool foo", "!!timestamp foo", "!!map [a]", "{!!int '': x}"):
            self.assertRegex(self.refusal(file=f"log_level: info\na: {value}\n"), ":2: the file is not YAML ")

    def test_characters_that_are_none_have_a_line(self) -> None:
        """Those that YAML does not know, and bytes that are no UTF-8."""
        self.assertRegex(self.refusal(file="\n\nlog_level: \0\n"), ":3: the file is not YAML ")
        path = Path(self.file(""))
        path.write_bytes(b"\n\nlog_level: \xff\n")
        self.assertRegex(self.refusal({"config": str(path)}), ":3: the file is not YAML ")

    def test_a_key_file_is_named_where_it_was_said(self) -> None:
        """With its line in a file."""
        self.assertRegex(self.refusal(file="\ntoken_key_file: /nowhere\n"), "^/.*:2: token_key_file: '/nowhere' cannot")
        self.assertRegex(self.refusal({"token-key-file": "/nowhere"}), "^--token-key-file: '/nowhere' cannot")

    def test_a_default_that_nobody_said_is_missed_at_the_table(self) -> None:
        """Of two upstreams none is the default by itself."""
        content = "shipped_upstreams: false\nupstreams:\n- namespace: a.example\n- namespace: b.example\n"
        self.assertRegex(self.refusal(file=content), "^/.*:3: upstreams: the default upstream 'docker.io' is not in")

    def test_a_name_of_several_lines_makes_no_second_line(self) -> None:
        """Nor does it colour a terminal."""
        error = self.refusal(file='upstreams:\n- namespace: "a\\nb\\e[31m"\n')
        self.assertTrue(error.isprintable(), error)

    def test_an_empty_option_is_a_slip(self) -> None:
        """A variable of a shell that nobody has set: the file that it should name would not count."""
        self.assertEqual(self.refusal({"config": ""}), "--config: is empty; write a value, or leave it out")
        self.assertRegex(self.refusal({"unlisted": ""}), "^--unlisted: is empty")


class FileTests(ConfigTestCase):
    """Files that are none; whoever reads them again at SIGHUP must come back."""

    def pipe(self) -> str:
        """Make a pipe that nobody writes to."""
        path = Path(self.mktemp()).absolute()
        os.mkfifo(path)
        return str(path)

    def test_a_pipe_is_not_waited_for(self) -> None:
        """In place of any file that is read."""
        pipe = self.pipe()
        self.assertIn("cannot be read (not a regular file)", self.refusal({"config": pipe}))
        self.assertIn("cannot be read (not a regular file)", self.refusal({"token-key-file": pipe}))
        for tls in (f"{{ca: {pipe}}}", f"{{cert: {pipe}}}"):
            error = self.refusal(file=f"upstreams:\n- namespace: a.example\n  tls: {tls}\n")
            self.assertIn("not a regular file", error)

    def test_a_device_without_end_is_not_read(self) -> None:
        """It would fill the memory."""
        for name in ("config", "token-key-file"):
            self.assertIn("cannot be read (not a regular file)", self.refusal({name: "/dev/zero"}))

    def test_a_name_that_none_can_have(self) -> None:
        """Somebody's home who is not there, a line end, a NUL."""
        for name in ("~nobody-at-all/x.yaml", "a\nb", "a\0b"):
            self.assertRegex(self.refusal({"config": name}), "^--config: .* is not a path; write an absolute one$")

    def test_a_directory_and_too_much(self) -> None:
        """Are told as they are."""
        self.assertIn("cannot be read (Is a directory)", self.refusal({"config": "/"}))
        self.assertIn("cannot be read (it has more than ", self.refusal(file="#" * (4 * 1024 * 1024 + 1)))


class SecretSlipTests(ConfigTestCase):
    """What may be a password is not shown."""

    def test_a_password_in_an_address(self) -> None:
        """Also in brackets, which the standard library repeats when it refuses a URL."""
        for error in (
            self.refusal(file="upstreams: [{namespace: r.example, urls: ['https://u:[hunter2]@r.example']}]"),
            self.refusal(file="upstreams: [{namespace: r.example, origins: ['https://u:[hunter2]@r.example']}]"),
            self.refusal(file="upstreams: [{namespace: r.example, token_realm: 'https://u:[hunter2]@r.example'}]"),
            self.refusal(file="upstreams: [{namespace: 'https://u:[hunter2]@r.example'}]"),
            self.refusal(UPSTREAM_REGISTRY="https://u:[hunter2]@r.example"),
            self.refusal(HTTPS_PROXY="http://u:[hunter2]@proxy.example"),
            self.refusal(file="upstreams: [{namespace: r.example, listen: 'https://u:hunter2@r.example'}]"),
        ):
            self.assertNotIn("hunter2", error)

    def test_a_login_that_cannot_be_sent(self) -> None:
        """Half a character in a file, in JSON, and bytes that are no UTF-8 in the environment."""
        login = "upstreams:\n- namespace: r.example\n  credentials: {username: u, %s}\n"
        self.assertRegex(self.refusal(file=login % 'password: "hunter2\\ud800"'), ":3: .*: must be a text of one line")
        error = self.refusal(file=login % "password_env: PASSWORD", PASSWORD="hunter2\udce9")
        self.assertRegex(error, r":3: .*credentials.password_env: must name .* in UTF-8$")
        error = self.refusal(UPSTREAM_CREDENTIALS='{"docker.io": {"username": "u", "password": "hunter2\\ud800"}}')
        self.assertNotIn("hunter2", error)


class RegistryTests(ConfigTestCase):
    """``UPSTREAM_REGISTRY`` as a URL."""

    def test_a_url_takes_no_entry_s_place(self) -> None:
        """Else what is configured about it would silently be gone."""
        content = "upstreams:\n- {namespace: r.example, urls: ['http://10.0.0.5:5000'], client_credentials: ignore}\n"
        error = self.refusal(file=content, UPSTREAM_REGISTRY="https://r.example")
        self.assertRegex(
            error, "^UPSTREAM_REGISTRY: 'https://r.example' would be the upstream r.example, .* write r.ex"
        )
        self.assertIn("write docker.io", self.refusal(UPSTREAM_REGISTRY="https://index.docker.io"))
        self.assertEqual(self.load(UPSTREAM_REGISTRY="https://ghcr.io").default_namespace, "ghcr.io")

    def test_a_login_for_it_still_counts(self) -> None:
        """It is in the table by then."""
        config = self.load(
            UPSTREAM_REGISTRY="https://r.example",
            UPSTREAM_CREDENTIALS='{"r.example": {"username": "u", "password": "p"}}',
        )
        self.assertEqual(cast(Password, config.upstreams[-1].account).username, "u")
