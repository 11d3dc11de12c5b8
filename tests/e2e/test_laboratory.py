"""The upstreams of the laboratory by themselves, without the proxy: they refuse whom they should."""

from __future__ import annotations

from urllib.parse import urlencode

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.clients import Reference, skopeo_pull
from tests.e2e.private_laboratory import ALICES, BOBS, PUBLIC, TEAMS, start_upstreams
from tests.e2e.processes import CommandFailed, Workshop
from tests.e2e.proxy import ask
from tests.e2e.registry import Registry
from tests.e2e.tokens import TokenAsk
from tests.e2e.users import ALICE, BOB, User


class UpstreamsTests(SynchronousTestCase):
    """If these say yes to everybody, the tests of the proxy prove nothing."""

    def setUp(self) -> None:
        """Start the upstreams."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.upstreams = start_upstreams(self.shop)

    def can_pull(self, registry: Registry, reference: Reference, user: User | None) -> bool:
        """Say whether skopeo can copy this from the registry itself."""
        options = ["--src-creds", user.pair] if user else []
        name = f"{reference.repository}:{reference.tag}"
        try:
            return bool(skopeo_pull(self.shop, registry.port, name, options))
        except CommandFailed:
            return False

    def test_bearer(self) -> None:
        """What is public is for anybody, all else for its owner with the right password."""
        bearer = self.upstreams.bearer
        people = (None, ALICE, BOB, ALICE.mistyped())
        able = {
            reference: [self.can_pull(bearer, reference, user) for user in people] for reference in (PUBLIC, ALICES)
        }
        self.assertEqual(able, {PUBLIC: [True, True, True, False], ALICES: [False, True, False, False]})

    def test_basic_only(self) -> None:
        """Whoever has a password may have everything, and nobody else anything."""
        people = (None, ALICE, BOB, ALICE.mistyped())
        able = [self.can_pull(self.upstreams.basic, TEAMS, user) for user in people]
        self.assertEqual(able, [False, True, True, False])

    def test_a_password_in_a_form(self) -> None:
        """The token server takes what containerd posts, and a wrong password is 401."""
        answers = {user.password: self.post(user) for user in (BOB, BOB.mistyped())}
        self.assertEqual(list(answers.values()), [200, 401])
        scopes = [f"repository:{BOBS.repository}:pull"]
        noted = [TokenAsk("POST", "bob", scopes, True, [BOBS.repository]), TokenAsk("POST", "bob", scopes, False, [])]
        self.assertEqual(self.upstreams.tokens.news(), noted)
        self.assertNotIn(BOB.password, self.upstreams.tokens.process.log())

    def post(self, user: User) -> int:
        """Ask as containerd does and return the status."""
        form = {"grant_type": "password", "service": "e2e-registry", "client_id": "e2e", "username": user.name}
        body = urlencode({**form, "password": user.password, "scope": f"repository:{BOBS.repository}:pull"})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return ask(self.upstreams.tokens.port, "POST", "/token", headers, body)[0]

    def test_revoked_and_rotated(self) -> None:
        """A new key alone changes nothing for who comes with a password; who was revoked gets nothing more."""
        tokens, bearer = self.upstreams.tokens, self.upstreams.bearer
        tokens.rotate()
        bearer.restart()
        self.assertTrue(self.can_pull(bearer, ALICES, ALICE))
        tokens.revoke(ALICE)
        self.assertEqual([self.can_pull(bearer, ALICES, ALICE), self.can_pull(bearer, BOBS, BOB)], [False, True])
