"""Authenticated mode by plain HTTP: what a token of ours opens, and what it does not (RULES C3-C5, D1, D2)."""

from __future__ import annotations

from tests.e2e import clients, login_clients
from tests.e2e.clients import Reference
from tests.e2e.login_clients import as_user
from tests.e2e.private_laboratory import ALICES, BOBS, OPEN, PUBLIC, TAG, TEAMS, PrivateLaboratoryTestCase
from tests.e2e.processes import wait_until
from tests.e2e.proxy import Proxy, start_proxy
from tests.e2e.users import ALICE, BOB, User
from tests.e2e.wire_client import WireClient


class AdmissionTestCase(PrivateLaboratoryTestCase):
    """Alice has pulled her image."""

    mode = "authenticated"

    def setUp(self) -> None:
        """Fill the store with Alice's image."""
        super().setUp()
        self.wire = WireClient(self.proxy)
        self.assert_pulls(as_user(login_clients.skopeo_creds, ALICE), ALICES, "cold")
        self.content_asks(ALICES)
        self.proxy.pulls()

    def targets(self, reference: Reference) -> list[str]:
        """Return what there is to be had of an image: tag, index, manifest, config, a layer."""
        image = self.upstreams.images[reference]
        platform = image.platform("amd64")
        manifests = [TAG, image.index_digest, platform.manifest_digest]
        blobs = [platform.config_digest, platform.layer_digests[1]]
        return [*(f"manifests/{name}" for name in manifests), *(f"blobs/{name}" for name in blobs)]

    def statuses(self, reference: Reference, targets: list[str], token: str, method: str = "GET") -> list[int]:
        """Ask for everything with one token of ours and return the statuses."""
        return [self.wire.get(reference, target, token, method)[0] for target in targets]


class WhoTests(AdmissionTestCase):
    """Kept content is for those to whom the upstream gives it, in the repository in which it is asked."""

    def test_what_is_kept_is_alices(self) -> None:
        """She gets it by one HEAD each; it is the original, and no shared cache may keep it for others."""
        status, token = self.wire.token(ALICES, ALICE)
        self.assertEqual(status, 200)
        for target in self.targets(ALICES)[1:]:
            status, headers, body = self.wire.get(ALICES, target, token)
            self.assertEqual(status, 200, target)
            digest = target.rpartition("/")[2]
            self.assertTrue(body == self.upstreams.images[ALICES].content(digest), target)
            self.assertIn("private", headers["cache-control"])
            self.assertNotIn("public", headers["cache-control"])
        self.assert_only_admissions(ALICES)

    def test_a_head_is_the_upstreams_to_answer(self) -> None:
        """Kept or not, HEAD asks the upstream, and is no GET."""
        _, token = self.wire.token(ALICES, ALICE)
        targets = self.targets(ALICES)
        self.assertEqual(self.statuses(ALICES, targets, token, "HEAD"), [200] * len(targets))
        names = {ask.content_name for ask in self.upstreams.bearer.news() if ask.method == "HEAD" and ask.status == 200}
        self.assertEqual(names, {target.rpartition("/")[2] for target in targets})

    def test_nobody_gets_it_without_a_token(self) -> None:
        """Every refusal is 401 with our one challenge; to follow it with a password works."""
        for target in self.targets(ALICES):
            status, headers, _ = self.wire.get(ALICES, target)
            self.assertEqual(status, 401, target)
            challenge = self.wire.challenge(headers)
            self.assertEqual(challenge["scheme"], "Bearer")
            self.assertEqual(challenge["realm"], f"http://127.0.0.1:{self.proxy.port}/v2/_token/docker.io")
            self.assertEqual(challenge["scope"], f"repository:{ALICES.repository}:pull")
            self.assertEqual(self.wire.get(ALICES, target, self.wire.follow(headers, ALICE))[0], 200)
            self.proxy.pulls()

    def test_tokens_of_others_bring_nothing(self) -> None:
        """Not of nobody, not of Bob for this repository, not of Bob for his own, not of Alice for another."""
        shown = {
            "anonymous": self.wire.token(ALICES, None)[1],
            "bob": self.wire.token(ALICES, BOB)[1],
            "bob's own": self.wire.token(BOBS, BOB)[1],
            "alice for another": self.wire.token(PUBLIC, ALICE)[1],
            "alice for another namespace": self.wire.token(TEAMS, ALICE)[1],
            "made up": "x" * 40,
        }
        for whose, token in shown.items():
            self.assertNotEqual(token, "", whose)
            statuses = self.statuses(ALICES, self.targets(ALICES), token)
            self.assertEqual(set(statuses), {401}, whose)
        self.assertEqual(self.served(ALICES), [])

    def test_a_token_with_a_password_inside_is_good_for_its_repository_alone(self) -> None:
        """A registry that wants Basic would give Bob all it has for it; the token was asked for one repository."""
        other = Reference(TEAMS.namespace, ALICES.repository, TAG)
        _, token = self.wire.token(TEAMS, BOB)
        self.assertEqual(set(self.statuses(other, self.targets(ALICES), token)), {401})
        self.assertEqual(set(self.statuses(other, self.targets(ALICES), self.wire.token(other, BOB)[1])), {200})

    def test_a_wrong_password_brings_no_token(self) -> None:
        """The refusal of the upstream's token server is the answer."""
        self.assertEqual(self.wire.token(ALICES, ALICE.mistyped()), (401, ""))

    def test_bob_cannot_reach_alices_content_through_his_own_repository(self) -> None:
        """Its digest is not in his repository, nor in those that are open: that is for the upstream to say."""
        digests = self.targets(ALICES)[1:]
        for reference, user in ((BOBS, BOB), (PUBLIC, None), (PUBLIC, ALICE), (OPEN, None), (TEAMS, BOB)):
            _, token = self.wire.token(reference, user)
            self.assertEqual(self.statuses(reference, digests, token), [404] * len(digests), str(reference))
            self.assertEqual(self.statuses(reference, digests, token, "HEAD"), [404] * len(digests), str(reference))
        _, token = self.wire.token(BOBS, BOB)
        self.assertEqual(self.statuses(BOBS, self.targets(BOBS), token), [200] * 5, "what is his own")

    def test_everybody_who_may_gets_it_from_one_fetch(self) -> None:
        """Both have passwords for what the team shares: one body each in all."""
        for user in (ALICE, BOB, ALICE):
            _, token = self.wire.token(TEAMS, user)
            self.assertEqual(self.statuses(TEAMS, self.targets(TEAMS), token), [200] * 5)
        sent = [ask.content_name for ask in self.content_asks(TEAMS) if ask.method == "GET" and ask.status == 200]
        digests = [target.rpartition("/")[2] for target in self.targets(TEAMS)[1:]]
        self.assertEqual(sorted(name for name in sent if name != TAG), sorted(digests))


class LossTests(AdmissionTestCase):
    """When nobody can say whether, nobody gets anything."""

    def assert_lost(self, reference: Reference, token: str) -> None:
        """Everything is 502, HEAD too."""
        for method in ("GET", "HEAD"):
            self.assertEqual(self.statuses(reference, self.targets(reference), token, method), [502] * 5, method)
        self.assertEqual(self.served(reference), [])

    def test_without_the_upstream(self) -> None:
        """502 for kept content, for its owner and for anybody; 200 again soon after it is back (RULES D8)."""
        _, token = self.wire.token(ALICES, ALICE)
        self.upstreams.bearer.stop()
        self.assert_lost(ALICES, token)
        self.assert_lost(ALICES, "")
        self.upstreams.bearer.start()
        wait_until(lambda: self.wire.get(ALICES, f"manifests/{TAG}", token)[0] == 200, 15, "asked again")
        self.assertEqual(self.statuses(ALICES, self.targets(ALICES), token), [200] * 5)

    def test_without_the_token_server(self) -> None:
        """There are no new tokens; those that were had before are still the upstream's to judge."""
        _, token = self.wire.token(ALICES, ALICE)
        self.upstreams.tokens.stop()
        self.assertEqual(self.wire.token(ALICES, BOB)[0], 502)
        self.assertEqual(self.wire.token(ALICES, ALICE)[0], 502)
        self.assertEqual(self.statuses(ALICES, self.targets(ALICES), token), [200] * 5)

    def test_the_loss_of_one_is_none_of_the_others(self) -> None:
        """With docker.io gone, ping, token and pull of the others work."""
        self.upstreams.bearer.stop_all()
        self.assertIn(self.proxy.ask("GET", "/v2/")[0], (200, 401))
        for reference, user in ((TEAMS, BOB), (OPEN, None)):
            _, token = self.wire.token(reference, user)
            self.assertEqual(self.statuses(reference, self.targets(reference), token), [200] * 5)


class RevocationTests(AdmissionTestCase):
    """What was allowed yesterday is asked again today."""

    def revoke(self, user: User) -> None:
        """Let a user be unknown, and all tokens worthless."""
        self.upstreams.tokens.revoke(user)
        self.upstreams.tokens.rotate()
        self.upstreams.bearer.restart()

    def test_another_key_alone_changes_nothing_for_who_has_a_password(self) -> None:
        """The next pull asks for a fresh token."""
        self.upstreams.tokens.rotate()
        self.upstreams.bearer.restart()
        self.assert_pulls(as_user(login_clients.skopeo_creds, ALICE), ALICES, "another key")
        self.assert_only_admissions(ALICES)

    def test_a_revoked_user_is_refused_at_the_next_pull(self) -> None:
        """Real clients fail; the token that was had before is 401; nothing that is kept is served."""
        _, token = self.wire.token(ALICES, ALICE)
        targets = self.targets(ALICES)
        self.assertEqual(self.statuses(ALICES, targets, token), [200] * 5)
        self.revoke(ALICE)
        self.proxy.pulls()
        self.assertEqual(self.statuses(ALICES, targets, token), [401] * 5)
        self.assertEqual(self.statuses(ALICES, targets, token, "HEAD"), [401] * 5)
        self.assertEqual(self.wire.token(ALICES, ALICE), (401, ""))
        self.assertEqual(self.served(ALICES), [])
        for client in (login_clients.skopeo_creds, login_clients.containerd_user):
            self.assert_fails(as_user(client, ALICE), ALICES, client.__name__)
        self.assertEqual(self.wire.get_as(BOB, BOBS, f"manifests/{TAG}")[0], 200, "nobody else is meant")

    def test_nobody_secret_is_in_the_log(self) -> None:
        """No password, no Basic value and no token of a real pull is printed."""
        _, token = self.wire.token(TEAMS, BOB)
        self.statuses(TEAMS, self.targets(TEAMS), token)
        self.assert_pulls(as_user(login_clients.podman_login, ALICE), TEAMS, "with a password")
        self.assert_fails(as_user(login_clients.skopeo_creds, ALICE.mistyped()), ALICES, "with a wrong one")
        log = self.proxy.process.log()
        secrets = (ALICE.password, ALICE.encoded, BOB.password, BOB.encoded, ALICE.mistyped().password, token)
        self.assertEqual([secret for secret in secrets if secret in log], [])


class KeptAdmissionTests(AdmissionTestCase):
    """``auth_cache_s``: a yes is believed for that long, for the same token and digest (RULES D2)."""

    def start_proxy(self) -> Proxy:
        """Start a proxy that believes a yes for an hour."""
        table, url = self.upstreams.table(), self.upstreams.bearer.url
        return start_proxy(self.shop, url, mode=self.mode, upstreams=table, auth_cache_s=3600, log_level="debug")

    def test_a_digest_is_asked_about_once_and_a_tag_each_time(self) -> None:
        """The second time only the tag is asked about; another token is another credential."""
        _, token = self.wire.token(ALICES, ALICE)
        self.statuses(ALICES, self.targets(ALICES), token)
        self.content_asks(ALICES)
        self.assertEqual(self.statuses(ALICES, self.targets(ALICES), token), [200] * 5)
        self.assertEqual({ask.content_name for ask in self.content_asks(ALICES)}, {TAG})
        self.assertEqual(set(self.statuses(ALICES, self.targets(ALICES), self.wire.token(ALICES, BOB)[1])), {401})
        self.assert_fails(clients.skopeo_path, ALICES, "no password")
