"""``ociproxy healthcheck`` and /readyz against real proxies, wherever they listen."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.certificates import self_signed
from tests.e2e.commands import Done, ociproxy
from tests.e2e.processes import Workshop, free_port
from tests.e2e.proxy import Proxy, start_proxy

DEAD = "http://127.0.0.1:9"


class HealthcheckTests(SynchronousTestCase):
    """The same configuration finds the proxy."""

    def setUp(self) -> None:
        """Nothing runs yet."""
        self.shop = Workshop()
        self.addCleanup(self.shop.close)

    def start(self, **more: object) -> Proxy:
        """Start a proxy whose upstream is not there; that makes nobody ill."""
        return start_proxy(self.shop, DEAD, **more)  # type: ignore[arg-type]

    def check(self, proxy: Proxy, *words: object) -> Done:
        """Check with the proxy's own file."""
        return ociproxy("healthcheck", "--config", proxy.config, *words, within_s=20)

    def assert_well(self, done: Done, words: str) -> None:
        """One line on standard output, status 0."""
        self.assertEqual((done.status, done.err), (0, ""), done)
        self.assertEqual(done.out.count("\n"), 1)
        self.assertTrue(done.out.endswith(f"{words}\n"), done.out)

    def certificates(self) -> dict[str, object]:
        """Return settings with a certificate for another name, which is no matter here."""
        made = self_signed(self.shop.directory("certificates"), "other", "other.test")
        return {"tls_cert": made.cert, "tls_key": made.key}

    def test_plain(self) -> None:
        """Alive and ready, found by its file; dead when it is dead."""
        proxy = self.start()
        self.assert_well(self.check(proxy), "200 ok")
        self.assert_well(self.check(proxy, "--ready"), "200 ready")
        proxy.stop()
        done = self.check(proxy)
        self.assertEqual((done.status, done.out), (1, ""))
        self.assertIn("Connection refused", done.err)

    def test_by_environment(self) -> None:
        """As in a container: nothing but the variables that the proxy has."""
        proxy = self.start()
        done = ociproxy("healthcheck", env={"PROXY_MODE": "transparent", "LISTEN_ADDR": f"127.0.0.1:{proxy.port}"})
        self.assert_well(done, "200 ok")

    def test_all_addresses(self) -> None:
        """``:PORT`` is asked on loopback."""
        port = free_port()
        proxy = self.start(listen=[f":{port}"], port=port)
        self.assert_well(self.check(proxy), "200 ok")

    def test_a_unix_socket(self) -> None:
        """By file and by --url."""
        port, path = free_port(), self.shop.directory("s") / "sock"
        proxy = self.start(listen=[f"unix:{path}", f"127.0.0.1:{port}"], port=port)
        done = self.check(proxy)
        self.assert_well(done, "200 ok")
        self.assertIn(f"unix:{path}", done.out)
        self.assert_well(ociproxy("healthcheck", "--url", f"unix:{path}"), "200 ok")

    def test_tls(self) -> None:
        """A certificate for somewhere else is no illness."""
        proxy = self.start(**self.certificates())
        self.assert_well(self.check(proxy, "--ready"), "200 ready")
        self.assert_well(ociproxy("healthcheck", "--url", f"https://localhost:{proxy.port}"), "200 ok")
        self.assertEqual(ociproxy("healthcheck", "--url", f"http://127.0.0.1:{proxy.port}").status, 1)

    def test_self_signed(self) -> None:
        """Made at the start."""
        proxy = self.start(generate_self_signed_tls=True)
        self.assert_well(self.check(proxy), "200 ok")

    def test_client_certificates(self) -> None:
        """TLS itself answers, which is life; more is to be had at a door that asks for none."""
        authority = self_signed(self.shop.directory("certificates"), "authority")
        tls = {**self.certificates(), "tls_client_ca": authority.cert}
        proxy = self.start(**tls)
        self.assert_well(self.check(proxy), "speaks TLS, with clients that have a certificate")
        done = self.check(proxy, "--ready")
        self.assertEqual(done.status, 1)
        self.assertIn("wants a client certificate; configure admin_listen", done.err)
        proxy.stop()
        self.assertEqual(self.check(proxy).status, 1)
        port, plain = free_port(), free_port()
        proxy = self.start(listen=[f"https://127.0.0.1:{port}", f"http://127.0.0.1:{plain}"], port=port, **tls)
        self.assert_well(self.check(proxy, "--ready"), "200 ready")

    def test_client_certificates_before_tls_1_3(self) -> None:
        """There the handshake itself ends with the alert, which is life too; where none is wanted it is not."""
        directory = self.shop.directory("certificates")
        made = self_signed(directory, "other", "other.test")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(made.cert, made.key)
        context.load_verify_locations(made.cert)
        context.verify_mode = ssl.CERT_REQUIRED
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def refuse() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with contextlib.suppress(OSError), connection:
                    context.wrap_socket(connection, server_side=True)

        threading.Thread(target=refuse, daemon=True).start()
        place = f"https://127.0.0.1:{listening.getsockname()[1]}"
        env = {"LISTEN_ADDR": place, "OCIPROXY_TLS_CLIENT_CA": made.cert}
        self.assert_well(ociproxy("healthcheck", env=env), "speaks TLS, with clients that have a certificate")
        self.assertEqual(ociproxy("healthcheck", env={"LISTEN_ADDR": place}).status, 1)

    def test_the_admin_door_comes_first(self) -> None:
        """It is asked, and answers."""
        path = self.shop.directory("s") / "admin"
        proxy = self.start(admin_listen=f"unix:{path}")
        done = self.check(proxy, "--ready")
        self.assert_well(done, "200 ready")
        self.assertIn(f"unix:{path}", done.out)

    def test_a_file_that_was_broken_later(self) -> None:
        """The proxy lives on; whoever restarted it for that would end it."""
        proxy = self.start()
        proxy.config.write_text("listne: 1\n")
        done = ociproxy("healthcheck", "--config", proxy.config, env={"LISTEN_ADDR": f"127.0.0.1:{proxy.port}"})
        self.assert_well(done, "200 ok")

    def test_a_proxy_that_hangs(self) -> None:
        """Nobody answers in time."""
        proxy = self.start()
        os.kill(proxy.pid, signal.SIGSTOP)
        try:
            began_s = time.monotonic()
            done = self.check(proxy, "--timeout", "1")
            self.assertLess(time.monotonic() - began_s, 5)
        finally:
            os.kill(proxy.pid, signal.SIGCONT)
        self.assertEqual(done.status, 1)
        self.assertIn("not within 1 s", done.err)

    def test_whose_disk_is_gone_is_ready(self) -> None:
        """Pulls go on without it."""
        proxy = self.start()
        root = Path(proxy.fs_root)
        root.rename(root.with_name("elsewhere"))
        self.assert_well(self.check(proxy, "--ready"), "200 ready")
