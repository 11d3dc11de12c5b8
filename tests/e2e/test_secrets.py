"""Nothing secret is left lying about: not in the log, the store, answers, or the process table (RULES A6, C, D3)."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import yaml

from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.secret_laboratory import (
    CDN_REFUSES,
    CLIENT,
    FILE,
    INLINE,
    LOGINS,
    MISTYPED,
    NATIVE,
    PASTED,
    POSTED,
    QUERY,
    SecretsTestCase,
    Told,
)
from tests.e2e.secret_search import Secrets, files_below, numbered
from tests.e2e.users import User


class SecretsTests(SecretsTestCase):
    """Every secret travels where it should, and where it should not; then it is looked for."""

    # --- what happens

    def use_everything(self, told: Told) -> dict[str, list[int]]:
        """Let every secret travel where it should, and where it should not; return what was answered to each client."""
        found = {}
        for name, user in (("client", CLIENT), ("posted", POSTED), ("mistyped", MISTYPED)):
            for namespace, upstream in (("hub.test", self.hub), ("basic.test", self.basic)):
                repository = f"team/{name}"
                shown = told.token(namespace, user, repository, posts=name == "posted")
                found[f"{name} at {namespace}"] = told.pull(namespace, upstream, shown, repository)
        told.token("careless.test", MISTYPED)
        told.token("no-tokens.test", CLIENT)
        told.token("lost.test", CLIENT)
        for shown in (f"Bearer {NATIVE}", MISTYPED.basic, f"Bearer {told.envelopes[0]}x", f"Odd {NATIVE}"):
            told.pull("careless.test", self.careless, shown, "team/odd")
            told.pull("lost.test", self.hub, shown, "team/odd")
        # Where a token of ours does not belong.
        told.ask("/v2/", f"Bearer {told.envelopes[0]}")
        told.token("basic.test", User("token", told.envelopes[0]))
        told.pull("hub.test", self.hub, CLIENT.basic.replace("Basic ", "Basic  "), "team/odd")
        told.ask(f"/v2/team/app/nothing?token={QUERY}", CLIENT.basic)
        return found

    def use_our_own(self, told: Told) -> dict[str, list[int]]:
        """Pull as nobody from every upstream that has a login of ours."""
        own = {"file.test": self.hub, "inline.test": self.basic, "variable.test": self.careless, "json.test": self.hub}
        bad = {"refused.test": self.careless, "refused-basic.test": self.basic, "lost.test": self.hub}
        bad |= {"no-cdn.test": self.no_cdn, "no-tokens.test": self.no_tokens}
        return {
            namespace: told.pull(namespace, upstream, repository=f"team/{namespace}")
            for namespace, upstream in {**own, **bad}.items()
        }

    def reload_with_a_slip(self, proxy: Proxy) -> None:
        """Let the file be wrong in a place where a password was pasted."""
        right = proxy.config.read_text()
        wrong = {"namespace": "slip.test", "credentials": {"username": "x", "password": INLINE.password, PASTED: "y"}}
        for number, upstream in enumerate(
            (wrong, {"namespace": f"https://x:{PASTED}@slip.test"}, {**wrong, "credentials": f"x:{PASTED}"}), start=1
        ):
            config = yaml.safe_load(right)
            config["upstreams"].append(upstream)
            proxy.config.write_text(yaml.safe_dump(config))
            proxy.reload()
            wait_until(lambda n=number: len(self.reloads(proxy)) == n, 10, "it says so")  # type: ignore[misc]
        proxy.config.write_text(right)

    def reloads(self, proxy: Proxy) -> list[str]:
        """Return what was said about files that are not taken."""
        return [text for text in proxy.complaints() if "is not taken" in text]

    def assert_silent(self, proxy: Proxy, told: Told) -> None:
        """Nothing is found; what was planted would be."""
        proxy.ask("GET", "/healthz")
        secrets, places = self.secrets(told), self.places(proxy, told)
        self.assertEqual(secrets.found_in(places), [])
        loud = [text for text in proxy.complaints() if "is not taken" not in text]
        self.assertEqual(loud, [])

    def test_transparent_mode(self) -> None:
        """Clients' and our own credentials, right and wrong, at registries that work and that do not."""
        proxy = self.start("transparent")
        told = Told(proxy)
        found = self.use_everything(told)
        self.assertEqual(found["client at hub.test"][:3], [200] * 3)
        self.assertEqual(found["posted at basic.test"][:3], [200] * 3)
        self.assertEqual(found["mistyped at hub.test"][:3], [401] * 3)
        found = self.use_our_own(told)
        for namespace in ("file.test", "inline.test", "variable.test", "json.test"):
            self.assertEqual(found[namespace][:3], [200] * 3, namespace)
        for namespace in ("refused.test", "refused-basic.test"):
            self.assertEqual(found[namespace], [401] * 4, namespace)
        self.assertEqual({found["lost.test"][0], found["no-tokens.test"][0]}, {502})
        self.assertEqual(found["no-cdn.test"][1], 502)
        told.ask("/metrics")
        self.reload_with_a_slip(proxy)
        self.assert_silent(proxy, told)

    def test_authenticated_mode(self) -> None:
        """Clients' credentials only; admissions lead to the same places."""
        proxy = self.start("authenticated")
        told = Told(proxy)
        found = self.use_everything(told)
        self.assertEqual(found["client at basic.test"][:3], [200] * 3)
        self.assertEqual(found["mistyped at basic.test"][:3], [401] * 3)
        shown = told.token("no-cdn.test", CLIENT)
        self.assertEqual(told.pull("no-cdn.test", self.no_cdn, shown)[:2], [200, 502])
        self.assert_silent(proxy, told)

    def assert_no_signature(self, mode: str) -> None:
        """A refusal of a CDN is told, without the signed address that it repeats."""
        proxy = self.start(mode)
        told = Told(proxy)
        for repository, status in CDN_REFUSES.items():
            shown = told.token("bad-cdn.test", CLIENT, repository) if mode == "authenticated" else ""
            found = told.pull("bad-cdn.test", self.bad_cdn, shown, repository)
            self.assertEqual(found[0], 200)
            # A refusal for our own login leads to nobody's.
            self.assertIn(found[1], (status, 502, 401 if status == 403 else 502))
        self.assertGreater(len([seen for seen in self.bad_cdn.seen() if seen.server == "cdn"]), 4)
        self.assert_silent(proxy, told)

    def test_a_cdn_that_repeats_its_address_in_transparent_mode(self) -> None:
        """It was given for a login of ours, to nobody else."""
        self.assert_no_signature("transparent")

    def test_a_cdn_that_repeats_its_address_in_authenticated_mode(self) -> None:
        """It was given for the client's own credential; that is no reason to hand it out."""
        self.assert_no_signature("authenticated")

    def test_the_search_finds_what_is_planted(self) -> None:
        """Each secret, in each form, in each kind of place."""
        secrets = Secrets()
        for what, user in LOGINS.items():
            secrets.add_login(what, user)
        directory = self.shop.directory("planted")
        (directory / "below").mkdir()
        for user in (FILE, POSTED, CLIENT):
            planted = {
                "as given": user.password,
                "as JSON": json.dumps({"a": user.password}),
                "as Basic": f"Authorization: {user.basic}",
                "as a form": urlencode({"password": user.password}),
                "in a log line": f'msg="{user.pair}"',
            }
            for how, text in planted.items():
                (directory / "below" / "sidecar.json").write_text(text)
                self.assertNotEqual(secrets.found_in(files_below(directory)), [], how)
        (directory / "below" / "sidecar.json").write_text("nothing")
        self.assertEqual(secrets.found_in(files_below(directory)), [])
        self.assertNotEqual(secrets.found_in(numbered([("GET /v2/", INLINE.password.encode())])), [])

    def test_the_search_finds_a_piece_of_a_long_secret(self) -> None:
        """Log values are cut off, and a token with them; what all tokens begin with is none of it."""
        secrets, token = Secrets(), f"ociproxy1.{bytes(range(200)).hex()}"
        secrets.add("a token", token)
        for piece in (token[:100], token[50:110], token[-60:]):
            self.assertEqual(secrets.found_in({"the log": f"value={piece}...".encode()}), ["a token in the log"])
        self.assertEqual(secrets.found_in({"the log": b"value=ociproxy1."}), [])
