"""A file as ``docker login`` writes it leads to a login, or to the helper that knows it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers, ManualWorkers
from txociproxy.upstreams.logins.accounts import DockerConfig, Helper, Login, LoginSource, LoginUnavailable
from txociproxy.upstreams.logins.docker_config import CONFIG_KEPT_S, MAX_CONFIG_BYTES, DockerConfigReader, look_up
from txociproxy.upstreams.logins.keeper import Reading

SECRET = "s3cret-of-the-file"
HOST = "registry.example.com"
URL = f"https://{HOST}"
HUB_URL = "https://registry-1.docker.io"
HUB_KEY = "https://index.docker.io/v1/"


def auth(text: str = f"robot:{SECRET}") -> dict[str, Any]:
    """Return an entry with this login."""
    return {"auth": base64.b64encode(text.encode()).decode()}


class LookUpTests(SynchronousTestCase):
    """One file, one registry."""

    def setUp(self) -> None:
        """Choose a place for the file."""
        self.path = Path(self.mktemp())
        self.account = DockerConfig(str(self.path), (("HOME", "/h"),))

    def look_up(self, config: object, url: str = URL) -> Login | Helper:
        """Write the file, and look into it."""
        self.path.write_text(config if isinstance(config, str) else json.dumps(config))
        return look_up(self.account, url)

    def refusal(self, config: object, url: str = URL) -> str:
        """Return why there is no login; it names the file, and nothing that is in it."""
        error = self.assertRaises(LoginUnavailable, self.look_up, config, url)
        self.assertIn(str(self.path), str(error))
        for secret in (SECRET, auth()["auth"], SECRET.encode().hex()):
            self.assertNotIn(secret, str(error))
        return str(error)

    def test_an_entry_of_the_host_is_the_login(self) -> None:
        """The first colon parts name and password, which may have more; NUL bytes pad what old ones wrote."""
        for text, login in (
            ("robot:a:b", Login("robot", "a:b")),
            ("robot:pass\0\0", Login("robot", "pass")),
            ("josé:ñ", Login("josé", "ñ")),
        ):
            self.assertEqual(self.look_up({"auths": {HOST: auth(text)}}), login)

    def test_name_and_password_may_stand_there_as_they_are(self) -> None:
        """As pull secrets have them."""
        entry = {"username": "robot", "password": SECRET}
        self.assertEqual(self.look_up({"auths": {HOST: entry}}), Login("robot", SECRET))
        self.assertEqual(self.look_up({"auths": {HOST: {**entry, "auth": ""}}}), Login("robot", SECRET))

    def test_the_best_name_wins_and_then_the_first(self) -> None:
        """A file may have several."""
        names = (f"http://{HOST}/v2/", f"https://{HOST}/v1/", HOST)
        auths = {name: auth(f"robot:{number}") for number, name in enumerate(names)}
        self.assertEqual(self.look_up({"auths": auths}), Login("robot", "2"))
        del auths[HOST]
        self.assertEqual(self.look_up({"auths": auths}), Login("robot", "0"))

    def test_docker_hub_is_found_under_its_own_name(self) -> None:
        """And the host's entry is not."""
        auths = {"docker.io": auth("robot:second"), HUB_KEY: auth("robot:first")}
        self.assertEqual(self.look_up({"auths": auths}, HUB_URL), Login("robot", "first"))

    def test_a_helper_of_the_host_comes_before_the_store(self) -> None:
        """It is asked for the server as docker calls it, with what the account lets it see."""
        config = {"auths": {}, "credHelpers": {HOST: "one", "other.example": "two"}, "credsStore": "all"}
        self.assertEqual(self.look_up(config), Helper("one", server=HOST, environment=(("HOME", "/h"),)))
        self.assertEqual(self.look_up(config, HUB_URL), Helper("all", server=HUB_KEY, environment=(("HOME", "/h"),)))

    def test_an_empty_entry_leads_to_the_store_under_its_own_name(self) -> None:
        """Docker leaves one when the store has the login."""
        config = {"auths": {f"https://{HOST}/v1/": {}}, "credsStore": "all"}
        self.assertEqual(
            self.look_up(config), Helper("all", server=f"https://{HOST}/v1/", environment=(("HOME", "/h"),))
        )

    def test_an_entry_with_a_login_comes_before_helpers(self) -> None:
        """What is in the file needs no program."""
        config = {"auths": {HOST: auth()}, "credHelpers": {HOST: "one"}, "credsStore": "all"}
        self.assertEqual(self.look_up(config), Login("robot", SECRET))

    def test_a_helper_with_no_name_turns_the_store_off(self) -> None:
        """For that host."""
        self.assertIn("no login", self.refusal({"credHelpers": {HOST: ""}, "credsStore": "all"}))

    def test_nothing_for_the_host_names_file_and_host(self) -> None:
        """Whatever there is for others."""
        configs: tuple[dict[str, Any], ...] = (
            {},
            {"auths": None},
            {"auths": {"other.example": auth()}},
            {"auths": {HOST: {}}},
        )
        for config in configs:
            self.assertIn(f"no login for {HOST}", self.refusal(config))
        self.assertIn(f"no login for {HUB_KEY}", self.refusal({}, HUB_URL))

    def test_a_token_alone_is_no_login(self) -> None:
        """The text says what to configure in its place."""
        for name in ("identitytoken", "registrytoken"):
            text = self.refusal({"auths": {HOST: {name: SECRET}}})
            self.assertIn("username and password", text)
            self.assertIn(HOST, text)

    def test_a_token_beside_a_login_or_a_helper_does_no_harm(self) -> None:
        """The others are used."""
        entry = {"identitytoken": "x"}
        self.assertEqual(self.look_up({"auths": {HOST: {**entry, **auth()}}}), Login("robot", SECRET))
        self.assertIsInstance(self.look_up({"auths": {HOST: entry}, "credsStore": "all"}), Helper)

    def test_what_docker_does_not_write_is_named_and_not_shown(self) -> None:
        """JSON's own errors would quote it."""
        for config, word in (
            ("", "not JSON"),
            (f'{{"auths": {SECRET}', "not JSON"),
            ("[" * 100_000, "not JSON"),
            ([], "as docker writes it"),
            ({"auths": [SECRET]}, "as docker writes it"),
            ({"auths": {HOST: SECRET}}, "as docker writes it"),
            ({"credHelpers": SECRET}, "as docker writes it"),
            ({"credHelpers": {HOST: {"x": SECRET}}}, "as docker writes it"),
            ({"credsStore": [SECRET]}, "as docker writes it"),
            ({"auths": {HOST: {"auth": SECRET}}}, "auth is not"),
            ({"auths": {HOST: {"auth": 7}}}, "auth is not"),
            ({"auths": {HOST: {"auth": "!" + auth()["auth"]}}}, "auth is not"),
            ({"auths": {HOST: auth(SECRET)}}, "auth is not"),
            ({"auths": {HOST: {"auth": base64.b64encode(b"\xff:x").decode()}}}, "auth is not"),
            ({"auths": {HOST: auth(f":{SECRET}")}}, "not both"),
            ({"auths": {HOST: auth("robot:")}}, "not both"),
            ({"auths": {HOST: {"password": SECRET}}}, "not both"),
            ({"auths": {HOST: {"username": "robot", "password": [SECRET]}}}, "not both"),
            ({"credsStore": "../../bin/sh"}, "credential helper"),
        ):
            self.assertIn(word, self.refusal(config), config)

    def test_a_file_that_is_too_large_is_not_read(self) -> None:
        """Nor looked into."""
        config = json.dumps({"auths": {HOST: auth()}})
        self.look_up(config + " " * (MAX_CONFIG_BYTES - len(config)))
        self.assertIn("more than", self.refusal(config + " " * (MAX_CONFIG_BYTES + 1 - len(config))))


@define(eq=False)
class HelperSource:
    """A source of a helper's logins, with what it hears on record."""

    helper: Helper
    heard: list[object] = field(factory=list)
    logins: int = 0

    async def login(self) -> Login:
        """Give one after the other."""
        self.logins += 1
        return Login("robot", f"{self.helper.name} {self.logins}")

    def refused(self, login: Login) -> None:
        """Note it."""
        self.heard.append(login)

    def stop(self) -> None:
        """Note it."""
        self.heard.append("stop")


class DockerConfigReaderTests(SynchronousTestCase):
    """The file is read in a thread, each time."""

    def setUp(self) -> None:
        """Write a file that names a helper."""
        self.path = Path(self.mktemp())
        self.sources: list[HelperSource] = []
        self.write({"credsStore": "one"})

    def write(self, config: object) -> None:
        """Write the file."""
        self.path.write_text(json.dumps(config))

    def source(self, helper: Helper) -> LoginSource:
        """Make a source that notes what it hears."""
        self.sources.append(HelperSource(helper))
        return self.sources[-1]

    def reader(self, workers: Any = None) -> DockerConfigReader:
        """Return a reader."""
        return DockerConfigReader(DockerConfig(str(self.path)), URL, workers or InlineWorkers(), self.source)

    def read(self, reader: DockerConfigReader) -> Reading:
        """Read now."""
        return self.successResultOf(Deferred.fromCoroutine(reader.read()))

    def test_the_file_is_read_by_the_workers_and_kept_for_a_minute(self) -> None:
        """A login that is in it."""
        self.write({"auths": {HOST: auth()}})
        workers = ManualWorkers()
        d = Deferred.fromCoroutine(self.reader(workers).read())
        self.assertNoResult(d)
        workers.work()
        self.assertEqual(self.successResultOf(d), Reading(Login("robot", SECRET), CONFIG_KEPT_S))
        self.assertEqual((CONFIG_KEPT_S, self.sources), (60.0, []))

    def test_the_same_helper_keeps_its_source(self) -> None:
        """So that it is not run for every look into the file."""
        reader = self.reader()
        passwords = [self.read(reader).login.password for _ in range(2)]
        self.assertEqual((passwords, len(self.sources)), (["one 1", "one 2"], 1))

    def test_another_helper_has_another_source(self) -> None:
        """The file was changed."""
        reader = self.reader()
        self.read(reader)
        self.write({"credsStore": "two"})
        self.assertEqual(self.read(reader).login.password, "two 1")
        self.assertEqual([source.helper.name for source in self.sources], ["one", "two"])

    def test_the_helper_s_source_hears_of_refusals_and_of_the_stop(self) -> None:
        """Before there is one, nobody does."""
        reader = self.reader()
        reader.refused(Login("robot", "x"))
        reader.stop()
        login = self.read(reader).login
        reader.refused(login)
        reader.stop()
        self.assertEqual(self.sources[0].heard, [login, "stop"])
