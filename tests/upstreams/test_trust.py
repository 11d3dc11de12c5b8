"""Whom an entry believes over TLS, and to whom it says who it is (RULES F3), over handshakes in memory."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.trial.unittest import SynchronousTestCase

from tests.doubles import InlineWorkers
from tests.upstreams.certificates import Authority, self_signed, trusted_by_the_system
from tests.upstreams.fakes import pull_of
from tests.upstreams.sockets import Handler, Seen, Sockets, WebServer, reply, settled
from txociproxy.interfaces import ANONYMOUS
from txociproxy.oci.errors import UpstreamUnreachable
from txociproxy.upstreams.connecting.tls_files import TlsFiles
from txociproxy.upstreams.connecting.trust import check_tls
from txociproxy.upstreams.entries.entry import Entry, Tls
from txociproxy.upstreams.entries.table import LiveTable, UpstreamTable
from txociproxy.upstreams.registry import Upstreams

NAMES = {"reg.corp": [["1.1.1.1"]], "cdn.corp": [["1.1.1.2"]], "auth.corp": [["1.1.1.3"]], "9.9.9.9": [["9.9.9.9"]]}


def _ok(_: Seen) -> bytes:
    return reply(200, b"ok")


def _leading_to(location: str) -> Handler:
    return lambda _: reply(307, location=location)


class TlsTests(SynchronousTestCase):
    """A registry, a CDN and a token server with certificates of one's own making."""

    def setUp(self) -> None:
        """The system trusts the public authority."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.private, self.public = Authority("Private"), Authority("Public")
        self.us = self.private.issue("the-proxy")
        trusted_by_the_system(self, self.public)
        self.ca, _ = self.private.own.write(self.folder, "ca")
        self.cert, self.key = self.us.write(self.folder, "us")
        self.reactor = Sockets({name: list(answers) for name, answers in NAMES.items()})

    def serve(self, address: str, tls: CertificateOptions, handler: Handler = _ok, port: int = 443) -> WebServer:
        """Let a server listen."""
        server = WebServer(handler)
        self.reactor.servers[address, port] = server.over_tls(tls, self.reactor)
        return server

    def code(self, entry: Entry) -> int:
        """Pull a blob through everything that is real but the network."""
        upstreams = Upstreams(self.reactor, LiveTable(UpstreamTable((entry,), entry.namespace)), InlineWorkers())
        upstream = upstreams.upstream(entry.namespace)
        assert upstream is not None
        got = settled(self.reactor, upstream.get(pull_of(), ANONYMOUS, None, None))
        code: int = self.successResultOf(got).code
        return code

    def refusal(self, entry: Entry) -> str:
        """Return why there was no answer."""
        upstreams = Upstreams(self.reactor, LiveTable(UpstreamTable((entry,), entry.namespace)), InlineWorkers())
        upstream = upstreams.upstream(entry.namespace)
        assert upstream is not None
        got = settled(self.reactor, upstream.get(pull_of(), ANONYMOUS, None, None))
        return str(self.failureResultOf(got, UpstreamUnreachable).value)

    def entry(self, url: str = "https://reg.corp", /, *, origins: tuple[str, ...] = (), **tls: str | bool) -> Entry:
        """Return an entry with TLS of its own."""
        return Entry("corp", (url,), origins=origins, tls=Tls(**tls) if tls else None)  # type: ignore[arg-type]

    def test_a_private_authority_is_believed_with_ca_only(self) -> None:
        """And the server is told the name that we want."""
        server = self.serve("1.1.1.1", self.private.issue("reg.corp").serving())
        self.assertIn("TLS: certificate verify failed", self.refusal(self.entry()))
        self.assertEqual(server.seen, [])
        self.assertEqual(self.code(self.entry(ca=self.ca)), 200)
        self.assertEqual([seen.server_name for seen in server.seen], ["reg.corp"])

    def test_ca_is_beside_the_systems_trust_and_not_in_its_place(self) -> None:
        """A registry of one's own authority may redirect to a CDN of the world."""
        self.serve("1.1.1.1", self.private.issue("reg.corp").serving(), _leading_to("https://cdn.corp/x"))
        self.serve("1.1.1.2", self.public.issue("cdn.corp").serving())
        self.assertEqual(self.code(self.entry(ca=self.ca)), 200)
        self.serve("1.1.1.1", self.public.issue("reg.corp").serving())
        self.assertEqual(self.code(self.entry(ca=self.ca)), 200)

    def test_ca_holds_for_every_hop(self) -> None:
        """Also for one at another origin."""
        self.serve("1.1.1.1", self.private.issue("reg.corp").serving(), _leading_to("https://cdn.corp/x"))
        self.serve("1.1.1.2", self.private.issue("cdn.corp").serving())
        self.assertEqual(self.code(self.entry(ca=self.ca)), 200)

    def test_a_certificate_for_another_host_is_refused(self) -> None:
        """Names and addresses are compared, also where the authority is known."""
        self.serve("1.1.1.1", self.private.issue("other.corp").serving())
        self.serve("9.9.9.9", self.private.issue("9.9.9.8").serving())
        for url in ("https://reg.corp", "https://9.9.9.9"):
            self.assertIn("TLS: the certificate is for another host", self.refusal(self.entry(url, ca=self.ca)))

    def test_an_address_in_a_certificate_counts(self) -> None:
        """And no name is sent for one (RFC 6066 §3)."""
        server = self.serve("9.9.9.9", self.private.issue("9.9.9.9").serving())
        self.assertEqual(self.code(self.entry("https://9.9.9.9", ca=self.ca)), 200)
        self.assertEqual(self.code(self.entry("https://9.9.9.9", verify=False)), 200)
        self.assertEqual([seen.server_name for seen in server.seen], [None, None])

    def test_a_self_signed_certificate_needs_verify_false(self) -> None:
        """The name is sent all the same."""
        server = self.serve("1.1.1.1", self_signed("anything").serving())
        self.assertIn("TLS:", self.refusal(self.entry()))
        self.assertIn("TLS:", self.refusal(self.entry(ca=self.ca)))
        self.assertEqual(self.code(self.entry(verify=False)), 200)
        self.assertEqual([seen.server_name for seen in server.seen], ["reg.corp"])

    def test_verify_false_holds_for_no_other_origin(self) -> None:
        """Neither a redirect's target, another port included, nor a token server; unless it is named."""
        for target, address, port in (("https://cdn.corp", "1.1.1.2", 443), ("https://reg.corp:8443", "1.1.1.1", 8443)):
            location = f"{target}/x"
            self.serve("1.1.1.1", self_signed("x").serving(), _leading_to(location))
            cdn = self.serve(address, self_signed("x").serving(), port=port)
            self.assertIn(f"{target}: TLS:", self.refusal(self.entry(verify=False)))
            self.assertEqual(cdn.seen, [])
            self.assertEqual(self.code(self.entry(verify=False, origins=(target,))), 200)

    def test_verify_false_does_not_hold_for_the_realm(self) -> None:
        """Not even if it is named as one: its certificate is what keeps tokens secret."""
        challenge = 'Bearer realm="https://auth.corp/token"'
        self.serve("1.1.1.1", self_signed("x").serving(), lambda _: reply(401, www_authenticate=challenge))
        auth = self.serve("1.1.1.3", self_signed("x").serving(), lambda _: reply(200, b'{"token":"t"}'))
        tls = Tls(verify=False)
        named = Entry("corp", ("https://reg.corp",), token_realm="https://auth.corp/token", tls=tls)
        self.assertIn("https://auth.corp: TLS:", self.refusal(named))
        self.assertEqual(auth.seen, [])
        both = Entry("corp", ("https://reg.corp",), origins=("https://auth.corp",), tls=tls)
        self.assertEqual(self.code(both), 401)
        self.assertEqual(len(auth.seen), 1)

    def test_a_registry_that_wants_to_know_who_we_are_is_told(self) -> None:
        """With a certificate, or the pull fails."""
        tls = self.private.asking(self.private.issue("reg.corp"), is_required=True)
        server = self.serve("1.1.1.1", tls)
        self.assertIn("TLS:", self.refusal(self.entry(ca=self.ca)))
        self.assertEqual(self.code(self.entry(ca=self.ca, cert=self.cert, key=self.key)), 200)
        self.assertEqual(self.code(self.entry(verify=False, cert=self.cert, key=self.key)), 200)
        self.assertEqual([seen.client for seen in server.seen], ["CN=the-proxy", "CN=the-proxy"])

    def test_nobody_else_is_told_who_we_are(self) -> None:
        """Neither a redirect's target nor a token server, though they ask; a named origin is told."""

        def registry(seen: object) -> bytes:
            return reply(401, www_authenticate='Bearer realm="https://auth.corp/token"')

        ask = {name: self.private.asking(self.private.issue(name), is_required=False) for name in NAMES}
        redirecting = self.serve("1.1.1.1", ask["reg.corp"], _leading_to("https://cdn.corp/x"))
        cdn = self.serve("1.1.1.2", ask["cdn.corp"])
        auth = self.serve("1.1.1.3", ask["auth.corp"], lambda _: reply(403))
        for verify in (True, False):
            entry = self.entry(ca=self.ca, cert=self.cert, key=self.key, verify=verify)
            self.assertEqual(self.code(entry), 200)
        self.assertEqual([seen.client for seen in redirecting.seen], ["CN=the-proxy"] * 2)
        self.assertEqual([seen.client for seen in cdn.seen], [None, None])
        named = self.entry(ca=self.ca, cert=self.cert, key=self.key, origins=("https://cdn.corp",))
        self.assertEqual(self.code(named), 200)
        self.assertEqual(cdn.seen[-1].client, "CN=the-proxy")
        self.serve("1.1.1.1", ask["reg.corp"], registry)
        realm = Entry(
            "corp", ("https://reg.corp",), token_realm="https://auth.corp/token", tls=Tls(self.ca, self.cert, self.key)
        )
        self.code(realm)
        self.assertEqual([seen.client for seen in auth.seen], [None])

    def test_old_tls_is_not_spoken(self) -> None:
        """Not below 1.2, with and without verification."""
        old = self.private.issue("reg.corp").serving(
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_0, lowerMaximumSecurityTo=TLSVersion.TLSv1_1
        )
        old.getContext().set_cipher_list(b"ALL:@SECLEVEL=0")
        self.serve("1.1.1.1", old)
        for entry in (self.entry(ca=self.ca), self.entry(verify=False)):
            self.assertIn("TLS:", self.refusal(entry))


class FileTests(SynchronousTestCase):
    """What stands in the files."""

    def setUp(self) -> None:
        """Write good files."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority()
        self.ca, self.ca_key = self.authority.own.write(self.folder, "ca")
        self.us = self.authority.issue("us")
        self.cert, self.key = self.us.write(self.folder, "us")

    def fault(self, tls: Tls) -> str:
        """Return what is wrong."""
        return str(self.assertRaises(ValueError, check_tls, tls))

    def test_good_files_are_good(self) -> None:
        """A certificate may come with its chain, and with its key in the same file."""
        both = self.folder / "both.pem"
        both.write_bytes(self.us.key_pem + self.us.cert_pem + self.authority.own.cert_pem)
        for tls in (Tls(), Tls(verify=False), Tls(self.ca, self.cert, self.key), Tls(cert=str(both))):
            check_tls(tls)
        self.assertEqual(len(TlsFiles.read(Tls(cert=str(both))).chain), 2)

    def test_what_is_wrong_names_key_and_file_and_tells_nothing(self) -> None:
        """One line each."""
        nonsense = self.folder / "nonsense.pem"
        nonsense.write_bytes(b"hunter2" * 9)
        long = self.folder / "long.pem"
        long.write_bytes(b"x" * (1024 * 1024 + 1))
        missing = str(self.folder / "missing")
        for tls, words in (
            (Tls(ca=missing), f"tls.ca: {missing}: No such file or directory"),
            (Tls(cert=str(self.folder)), f"tls.cert: {self.folder}: Is a directory"),
            (Tls(ca=str(nonsense)), f"tls.ca: {nonsense} does not hold certificates in PEM"),
            (Tls(ca=self.key), f"tls.ca: {self.key} does not hold certificates in PEM"),
            (Tls(cert=self.cert), f"tls.key: {self.cert} does not hold an unencrypted private key in PEM"),
            (Tls(cert=self.cert, key=str(nonsense)), f"tls.key: {nonsense} does not hold an unencrypted private key"),
            (Tls(cert=self.cert, key=self.ca_key), f"tls.key: {self.ca_key} is not the key of the first certificate"),
            (Tls(key=self.key), "tls.key: needs `cert`"),
            (Tls(ca=str(long)), f"tls.ca: {long} is longer than"),
            (Tls(ca="a\0b"), "tls.ca: a\0b: cannot be read"),
        ):
            found = self.fault(tls)
            self.assertIn(words, found)
            self.assertNotIn("hunter2", found)
            self.assertNotIn("\n", found)

    def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(self) -> None:
        """The process has no terminal."""
        locked = self.folder / "locked.key"
        locked.write_bytes(self.us.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
        self.assertIn("unencrypted", self.fault(Tls(cert=self.cert, key=str(locked))))

    def test_nothing_of_a_key_is_printed(self) -> None:
        """Not in a repr."""
        self.assertNotIn("PrivateKey", repr(TlsFiles.read(Tls(cert=self.cert, key=self.key))))

    def test_files_are_the_same_by_what_stands_in_them(self) -> None:
        """A renewed certificate, and a text moved from one file to another, are seen."""
        first = TlsFiles.read(Tls(self.ca, self.cert, self.key))
        self.assertEqual(first, TlsFiles.read(Tls(self.ca, self.cert, self.key)))
        self.authority.issue("us").write(self.folder, "us")
        self.assertNotEqual(first, TlsFiles.read(Tls(self.ca, self.cert, self.key)))
        ca_alone, none = TlsFiles.read(Tls(ca=self.ca)), TlsFiles.read(Tls())
        self.assertNotEqual(ca_alone, none)
