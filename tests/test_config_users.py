"""What is configured about users of our own, and what it does to everybody's Authorization (RULES C6)."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.web.test_passwords import entry
from txociproxy.config import Config, ConfigError, load
from txociproxy.wiring import web_settings


class UsersTests(SynchronousTestCase):
    """``htpasswd_file``."""

    def load(self, **environ: str) -> Config:
        """Read a configuration of the environment alone."""
        return load({}, {"PROXY_MODE": "transparent", "FS_ROOT": "/srv/x", **environ}, True)

    def file(self, data: bytes) -> str:
        """Write a file."""
        path = Path(self.mktemp()).absolute()
        path.write_bytes(data)
        return str(path)

    def refusal(self, data: bytes, **environ: str) -> str:
        """Return why a configuration with such a file is refused."""
        return str(self.assertRaises(ConfigError, self.load, OCIPROXY_HTPASSWD_FILE=self.file(data), **environ))

    def test_with_users_authorization_is_ours(self) -> None:
        """Without, it is the upstreams'."""
        named = self.load(OCIPROXY_HTPASSWD_FILE=self.file(entry(b"ann", b"secret")))
        self.assertTrue(web_settings(named).owns_authorization)
        self.assertFalse(web_settings(self.load()).owns_authorization)

    def test_a_file_that_nobody_could_log_in_with_is_refused_in_one_line(self) -> None:
        """It names the setting and the remedy, and nothing of the file."""
        for data in (b"", b"ann:sesame\n", b"ann:$apr1$a$b\n"):
            error = self.refusal(data)
            self.assertIn("OCIPROXY_HTPASSWD_FILE", error)
            self.assertIn("htpasswd -B", error)
            self.assertNotIn("sesame", error)
            self.assertNotIn("\n", error)

    def test_a_file_that_is_not_there_is_named(self) -> None:
        """Before anything is started."""
        error = str(self.assertRaises(ConfigError, self.load, OCIPROXY_HTPASSWD_FILE="/nowhere/users"))
        self.assertIn("'/nowhere/users' cannot be read (No such file or directory)", error)

    def test_it_cannot_be_in_authenticated_mode(self) -> None:
        """That lives on what clients send for the upstream."""
        error = self.refusal(entry(b"ann", b"secret"), PROXY_MODE="authenticated")
        self.assertIn("authenticated mode", error)
        self.assertIn("use mode transparent", error)
