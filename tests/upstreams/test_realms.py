"""Which token server may see credentials (RULES C8)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txociproxy.upstreams.entries.entry import Entry
from txociproxy.upstreams.realms import Realms, remedy


class RealmsTests(SynchronousTestCase):
    """The same owner, or named by ours."""

    def test_hosts_of_one_owner_and_no_others(self) -> None:
        """By the registrable domain; addresses and single labels by the exact host."""
        realms = Realms()
        for trusted, url, realm in (
            (True, "https://registry-1.docker.io", "https://auth.docker.io/token"),
            (True, "https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
            (True, "http://10.0.0.1:5000", "http://10.0.0.1:5001/token"),
            (True, "http://registry:5000", "http://registry/token"),
            (False, "https://registry-1.docker.io", "https://auth.docker.io.evil.example/token"),
            (False, "https://a.co.uk", "https://b.co.uk/token"),
            (False, "https://a.github.io", "https://b.github.io/token"),
            (False, "http://10.0.0.1", "http://10.0.0.2/token"),
            (False, "http://registry", "http://auth/token"),
            (False, "http://a.local.invalidtld", "http://b.local.invalidtld"),
            (False, "https://reg.example.com", "http://reg.example.com/token"),
            (False, "https://reg.example.com", "not a url"),
        ):
            self.assertEqual(realms.may_see_credentials(Entry("x", (url,)), url, realm), trusted, realm)

    def test_a_realm_that_the_entry_names_is_trusted(self) -> None:
        """By its origin, and never from https to http."""
        entry = Entry("x", ("https://x.example",), token_realm="https://sso.corp/token")
        self.assertTrue(Realms().may_see_credentials(entry, "https://x.example", "https://sso.corp/other"))
        self.assertFalse(Realms().may_see_credentials(entry, "https://x.example", "http://sso.corp/other"))

    def test_the_remedy_can_be_copied(self) -> None:
        """It names the realm as the key wants it, without its query and at a bearable length."""
        text = remedy("quay.io", "https://sso.example/auth/token?client=secret#x")
        self.assertIn("`token_realm: https://sso.example/auth/token` in the upstream quay.io", text)
        self.assertNotIn("secret", text)
        self.assertIn("`token_realm: https://sso.example`", remedy("quay.io", "https://sso.example/" + "x" * 200))
