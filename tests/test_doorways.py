"""What is configured about the doors, and what is said where it cannot be."""

from __future__ import annotations

import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from attrs import define, evolve
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from tests.doubles import InlineWorkers
from tests.test_config import ConfigTestCase
from tests.upstreams.certificates import Authority, Issued
from tests.web.tls_client import Echoes, Talk, trusting
from txociproxy.config import Config
from txociproxy.doorways import door_tls
from txociproxy.introduction import is_public, plain_warning, trust_lines
from txociproxy.web.ports import Ports
from txociproxy.web.tls.certificates import DoorTls
from txociproxy.web.tls.files import TlsPaths
from txociproxy.web.tls.selfmade import self_made
from txociproxy.wiring import web_settings


class DoorsTestCase(ConfigTestCase):
    """A pair of files that is right."""

    def setUp(self) -> None:
        """Write it."""
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.authority = Authority()
        self.issued: Issued = self.authority.issue("cache.test")
        self.cert, self.key = self.issued.write(self.folder, "door")

    def pair(self, **more: Any) -> dict[str, Any]:
        """Return the options of the pair."""
        return {"tls-cert": self.cert, "tls-key": self.key, **more}


class CheckTests(DoorsTestCase):
    """Everything that is wrong with the files is said before anything is started."""

    def test_a_right_pair(self) -> None:
        """With an authority of clients, too."""
        ca = self.authority.own.write(self.folder, "ca")[0]
        config = self.load(self.pair(**{"tls-client-ca": ca}))
        self.assertEqual((config.tls_cert, config.tls_key, config.tls_client_ca), (self.cert, self.key, ca))
        self.assertEqual(config.listen, (":8080",))
        self.assertTrue(web_settings(config).owns_authorization, "as with users of our own (RULES C6)")

    def test_the_option_is_named_and_the_file(self) -> None:
        """Wherever it was said: as an option, in the environment, in the file with its line."""
        junk = self.folder / "junk"
        junk.write_text("junk")
        self.assertRegex(self.refusal(self.pair(**{"tls-key": str(junk)})), r"^--tls-key: '.*/junk' does not hold")
        variables: dict[str, Any] = {"OCIPROXY_TLS_CERT": "/nowhere/c.pem", "OCIPROXY_TLS_KEY": self.key}
        self.assertRegex(
            self.refusal(**variables),
            r"^OCIPROXY_TLS_CERT: '/nowhere/c.pem' cannot be read \(No such file or directory\); name a file",
        )
        file = f"tls_cert: {self.cert}\ntls_key: {self.key}\ntls_client_ca: {junk}\n"
        self.assertRegex(self.refusal(file=file), r":3: tls_client_ca: '.*/junk' does not hold a certificate")

    def test_a_key_of_another_certificate(self) -> None:
        """What does not fit is not started."""
        other = self.authority.issue("other.test").write(self.folder, "other")[1]
        self.assertRegex(self.refusal(self.pair(**{"tls-key": other})), r"^--tls-key: .* is not the key of the first")

    def test_authorities_are_read_beside_a_certificate_that_is_made(self) -> None:
        """Nothing else is in a file then."""
        made: dict[str, Any] = {"GENERATE_SELF_SIGNED_TLS": "true"}
        self.assertRegex(self.refusal({"tls-client-ca": self.key}, **made), r"^--tls-client-ca: .* does not hold")
        ca = self.authority.own.write(self.folder, "ca")[0]
        self.assertEqual(self.load({"tls-client-ca": ca}, **made).tls_client_ca, ca)

    def test_half_a_certificate_and_two_of_them(self) -> None:
        """And what makes no sense without one."""
        made: dict[str, Any] = {"GENERATE_SELF_SIGNED_TLS": "true"}
        for said, environ, words in (
            ({"tls-cert": self.cert}, {}, "--tls-cert: needs tls_key"),
            ({"tls-key": self.key}, {}, "--tls-key: needs tls_cert"),
            (self.pair(), made, "there is a tls_cert already"),
            ({"tls-client-ca": self.cert}, {}, "counts where TLS is spoken only"),
            ({"tls-san": ["x.test"]}, {}, "counts with generate_self_signed_tls only"),
            ({"listen": ["https://:443"]}, {}, "needs a certificate"),
            ({"admin-listen": "https://:9"}, {}, "needs a certificate"),
        ):
            self.assertIn(words, self.refusal(cast("dict[str, Any]", said), **environ))

    def test_the_door_of_one_upstream_needs_a_certificate_too(self) -> None:
        """It is said when the configuration is checked, with its line."""
        file = "mode: transparent\nupstreams:\n- namespace: r.example\n  listen: https://:9\n"
        self.assertRegex(
            self.refusal(file=file), r":4: upstreams\[r\.example\]\.listen: 'https://:9' needs a certificate; give"
        )
        self.assertEqual(self.load(self.pair(), file=file).upstreams[-1].listen, "https://:9")

    def test_twisteds_own_tls_lets_nobody_around_the_authorities_of_clients(self) -> None:
        """It asks for no certificate, whatever lies around it."""
        both = self.folder / "both.pem"
        both.write_bytes(self.issued.key_pem + self.issued.cert_pem)
        place = f"ssl:9:privateKey={both}"
        for listen in (place, f"haproxy:{place}"):
            said: dict[str, Any] = self.pair(listen=[listen])
            self.assertEqual(self.load(said).listen, (listen,))
            text = self.refusal({**said, "tls-client-ca": self.cert})
            self.assertIn("is Twisted's own TLS, which knows nothing of tls_client_ca", text)
        file = f"mode: transparent\nupstreams: [{{namespace: r.example, listen: '{place}'}}]\n"
        self.assertIn("nothing of tls_client_ca", self.refusal(self.pair(**{"tls-client-ca": self.cert}), file=file))

    def test_a_made_certificate_moves_the_default_door(self) -> None:
        """To :8443, unless it is said where to listen."""
        made: dict[str, Any] = {"GENERATE_SELF_SIGNED_TLS": "true"}
        self.assertEqual(self.load(**made).listen, (":8443",))
        self.assertEqual(self.load({"listen": [":9"]}, **made).listen, (":9",))
        self.assertEqual(self.load(LISTEN_ADDR=":7", **made).listen, (":7",))


class MakingTests(DoorsTestCase):
    """From the configuration to the TLS of the doors."""

    def made(self, config: Config) -> DoorTls | None:
        """Make it."""
        return door_tls(config, Clock(), InlineWorkers())

    def test_none_where_no_tls_is_spoken(self) -> None:
        """Plain doors cost nothing."""
        self.assertIsNone(self.made(self.load()))

    def shown(self, config: Config) -> bytes:
        """Return the certificate that a client sees."""
        tls = self.made(config)
        assert tls is not None
        self.assertEqual(tls.handshake_s, config.header_timeout_s)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        talk = Talk.begin(tls.wrapped(Echoes()), lambda: None, context)
        talk.shake_hands()
        return talk.certificate()

    def test_what_is_in_files_is_served(self) -> None:
        """The handshake has the time of a head."""
        config = self.load(self.pair(**{"header-timeout-s": "7"}))
        self.assertEqual(self.shown(config), ssl.PEM_cert_to_DER_cert(self.issued.cert_pem.decode()))

    def test_what_is_made_has_the_names_that_are_said(self) -> None:
        """Beside those that it always has."""
        config = self.load({"tls-san": ["cache.lan"]}, GENERATE_SELF_SIGNED_TLS="true")
        self.assertIn(b"cache.lan", self.shown(config))
        self.assertIn(b"host.docker.internal", self.shown(config))

    def test_clients_need_a_certificate_where_that_is_said(self) -> None:
        """With a made certificate too."""
        ca = self.authority.own.write(self.folder, "ca")[0]
        for config in (
            self.load({"tls-client-ca": ca}, GENERATE_SELF_SIGNED_TLS="true"),
            self.load(self.pair(**{"tls-client-ca": ca})),
        ):
            clock = Clock()
            tls = door_tls(config, clock, InlineWorkers())
            assert tls is not None
            context = trusting(self.authority.own.cert_pem)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            talk = Talk.begin(tls.wrapped(Echoes()), lambda clock=clock: clock.advance(0), context)
            talk.shake_hands()
            self.assertIn("alert", str(self.assertRaises(ssl.SSLError, talk.ask, b"hello")).lower())

    def test_files_that_went_wrong_since_they_were_checked(self) -> None:
        """One line all the same."""
        config = self.load(self.pair())
        Path(self.key).unlink()
        error = self.assertRaises(ValueError, self.made, config)
        self.assertRegex(str(error), r"^--tls-key: .* cannot be read")


@define(eq=False)
class _Door:
    """A port at an address."""

    address: object
    factory: object = None

    def getHost(self) -> object:
        """Say where."""
        return self.address


class IntroductionTests(DoorsTestCase):
    """What is said about doors at which passwords could be read on the way."""

    def port(self, host: str = "192.0.2.1", factory: object = None) -> IListeningPort:
        """Return a port at an address."""
        return cast(IListeningPort, _Door(IPv4Address("TCP", host, 8080), factory))

    def secret(self) -> IListeningPort:
        """Return a port that speaks TLS."""
        made = self_made([], datetime.now(UTC) - timedelta(days=1))
        tls = DoorTls(TlsPaths(), made, InlineWorkers(), Clock(), time.time, 20)
        return self.port(factory=tls.wrapped(Factory()))

    def test_a_door_is_public_if_one_of_its_ports_is_plain_and_public(self) -> None:
        """TLS is not, loopback is not, and a file is not."""
        local, socket = self.port("127.0.0.1"), cast(IListeningPort, _Door(UNIXAddress(b"/s")))
        self.assertFalse(is_public(Ports((local, socket, self.secret()))))
        self.assertTrue(is_public(Ports((local, self.port()))))

    def test_it_is_warned_of_doors_that_are_plain_and_public(self) -> None:
        """Which they are, and what to do; where clients send passwords, in either mode."""
        plain, users = self.load(PROXY_MODE="authenticated"), evolve(self.load(), htpasswd_file="/x")
        for config in (plain, users):
            text = plain_warning(config, [self.secret(), self.port()])
            assert text is not None
            self.assertIn("at 192.0.2.1:8080; give --tls-cert", text)
            self.assertIsNone(plain_warning(config, [self.secret(), self.port("127.0.0.1")]))
        self.assertIsNone(plain_warning(self.load(), [self.port()]))

    def test_it_is_warned_of_public_doors_that_ask_for_no_certificate(self) -> None:
        """Somebody believes that only clients with one get in; passwords would keep the others out."""
        config = evolve(self.load(), tls_client_ca="/x")
        text = plain_warning(config, [self.secret(), self.port()])
        self.assertEqual(
            text, "clients need no certificate in plain HTTP at 192.0.2.1:8080; say https://, or 127.0.0.1"
        )
        self.assertIsNone(plain_warning(config, [self.secret(), self.port("127.0.0.1")]))
        locked = plain_warning(evolve(config, htpasswd_file="/y"), [self.port()])
        self.assertIn("passwords", str(locked))

    def test_no_upstream_sees_credentials_that_are_for_this_proxy(self) -> None:
        """Nor is that said (RULES C6)."""
        config = self.load()
        self.assertIn("see the credentials that clients send", str(trust_lines(config)))
        for owning in (evolve(config, htpasswd_file="/x"), evolve(config, tls_client_ca="/x")):
            self.assertEqual(trust_lines(owning), [])
