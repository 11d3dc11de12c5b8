"""The key ``credentials`` of an upstream."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.entries.reading import entry_from_mapping
from txociproxy.upstreams.logins.accounts import Account, DockerConfig, Ecr, Helper, Password, PasswordFile

ENVIRON = {"HOME": "/home/u", "PATH": "/bin", "TOKEN": "hunter2", "EMPTY": "", "OTHER": "x", "LINE": "hunter2\r\n"}


def account(**credentials: object) -> Account | None:
    """Return what an upstream with these credentials has."""
    return entry_from_mapping({"namespace": "r.example", "credentials": credentials}, ENVIRON).account


class FormTests(SynchronousTestCase):
    """Exactly one form."""

    def test_each_form_makes_its_value(self) -> None:
        """Paths become absolute."""
        always = (("HOME", "/home/u"), ("PATH", "/bin"))
        for credentials, expected in (
            ({"username": "u", "password": "p:ä "}, Password("u", "p:ä ")),
            ({"username": "ü", "password_file": "/p"}, PasswordFile("ü", "/p")),
            ({"username": "u", "password_file": "p"}, PasswordFile("u", os.path.abspath("p"))),
            ({"username": "u", "password_env": "TOKEN"}, Password("u", "hunter2")),
            ({"docker_config": "/c.json"}, DockerConfig("/c.json", always)),
            ({"docker_config": "/c", "environment": ["OTHER"]}, DockerConfig("/c", (*always, ("OTHER", "x")))),
            ({"helper": "pass"}, Helper("pass", environment=always)),
            (
                {"helper": "ecr-login", "server": "https://x", "lifetime_s": "6h", "environment": ["OTHER", "HOME"]},
                Helper("ecr-login", "https://x", 6 * 3600.0, (*always, ("OTHER", "x"))),
            ),
            ({"ecr": True}, Ecr()),
            ({"ecr": {"region": "eu-central-1"}}, Ecr("eu-central-1")),
            ({"ecr": {"region": "eu-central-1", "profile": "p"}}, Ecr("eu-central-1", "p")),
        ):
            self.assertEqual(account(**credentials), expected)

    def test_none_two_and_half_forms_are_refused(self) -> None:
        """The error lists what there is."""
        for credentials in (
            {},
            {"username": "u"},
            {"password": "p"},
            {"username": "u", "password": "p", "password_file": "/p"},
            {"username": "u", "password": "p", "ecr": True},
            {"docker_config": "/c", "helper": "h"},
            {"docker_config": "/c", "lifetime_s": 5},
            {"username": "u", "password": "p", "environment": ["OTHER"]},
            {"ecr": True, "server": "x"},
            {"helper": "h", "username": "u"},
        ):
            error = str(self.assertRaises(ValueError, account, **credentials))
            self.assertIn("upstreams[r.example].credentials: must be exactly one of: username with password, ", error)

    def test_nothing_below_the_key_is_a_mistake(self) -> None:
        """Lines that were commented out do not make the upstream anonymous in silence."""
        mapping = {"namespace": "r.example", "credentials": None}
        self.assertIn("must be a mapping", str(self.assertRaises(ValueError, entry_from_mapping, mapping)))

    def test_a_wrong_value_names_its_key_and_the_remedy(self) -> None:
        """And is not shown."""
        for key, value, remedy in (
            ("username", "u:hunter2", "without a colon"),
            ("username", "", "text"),
            ("password", 4711, "put it in quotes"),
            ("password", "", "text"),
            ("password", "hunter2\n", "one line"),
            ("password_env", "hunter2", "that is set and not empty"),
            ("password_env", "EMPTY", "that is set and not empty"),
            ("password_env", "hunter2=", "the name of an environment variable"),
            ("password_file", "", "path of a file"),
        ):
            other = "password" if key == "username" else "username"
            error = str(self.assertRaises(ValueError, account, **{other: "u", key: value}))
            self.assertIn(f"upstreams[r.example].credentials.{key}: must ", error)
            self.assertIn(remedy, error)
            self.assertNotIn("hunter2", error)
            self.assertNotIn("4711", error)

    def test_wrong_helpers_and_regions(self) -> None:
        """A helper is a name, never a path or an option."""
        for credentials, where in (
            ({"helper": "/bin/sh"}, "helper"),
            ({"helper": "../x"}, "helper"),
            ({"helper": "-x"}, "helper"),
            ({"helper": "h", "lifetime_s": 0}, "lifetime_s"),
            ({"helper": "h", "lifetime_s": True}, "lifetime_s"),
            ({"helper": "h", "environment": ["MISSING"]}, "environment[0]"),
            ({"helper": "h", "environment": ["A=b"]}, "environment"),
            ({"ecr": False}, "ecr"),
            ({"ecr": {"regio": "x"}}, "ecr.?"),
            ({"ecr": {"region": 5}}, "ecr.region"),
        ):
            error = str(self.assertRaises(ValueError, account, **credentials))
            self.assertIn(f"upstreams[r.example].credentials.{where}: ", error)

    def test_the_spelling_of_another_program_is_explained(self) -> None:
        """``user`` is ``username`` here."""
        error = str(self.assertRaises(ValueError, account, user="u", password="hunter2"))
        self.assertEqual(error, "upstreams[r.example].credentials.user: unknown key; write `username`")

    def test_a_line_end_of_a_variable_does_not_count(self) -> None:
        """As with files; secrets that are made with ``echo`` have one."""
        self.assertEqual(account(username="u", password_env="LINE"), Password("u", "hunter2"))
