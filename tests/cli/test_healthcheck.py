"""``ociproxy healthcheck``: what answers mean; that it really asks is shown by the tests with processes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.commands import run_command
from txociproxy.cli.healthcheck import judged
from txociproxy.cli.places import Place
from txociproxy.oci.requests import Page
from txociproxy.web.pages import Pages

PLACE = Place("127.0.0.1:80", ("127.0.0.1",), 80)
FULL = b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "too many connections"}]}'


class JudgedTests(SynchronousTestCase):
    """An answer has come."""

    def judge(self, page: str, status: int, body: bytes) -> tuple[int, str]:
        """Return exit status and words."""
        answer = judged(PLACE, page, status, body)
        return answer.status, answer.text

    def test_good(self) -> None:
        """200 is the one good answer to both questions, in the words of the page."""
        self.assertEqual(self.judge("healthz", 200, b"ok"), (0, "127.0.0.1:80: 200 ok"))
        self.assertEqual(self.judge("readyz", 200, b"ready\n"), (0, "127.0.0.1:80: 200 ready"))

    def test_the_pages_themselves(self) -> None:
        """What is good is what they say, whatever that is."""
        why: list[str] = []
        pages = Pages(lambda: why[0] if why else None)
        for name in ("healthz", "readyz"):
            reply = pages.answer(Page(name))
            self.assertEqual(self.judge(name, reply.status, reply.body)[0], 0)
        why.append("draining")
        reply = pages.answer(Page("readyz"))
        self.assertEqual(self.judge("readyz", reply.status, reply.body)[0], 1)

    def test_bad(self) -> None:
        """With the reason that came; another server's answer is no sign of life of ours."""
        self.assertEqual(self.judge("readyz", 503, b"draining"), (1, "127.0.0.1:80: 503 draining"))
        self.assertEqual(self.judge("healthz", 404, b""), (1, "127.0.0.1:80: 404"))
        self.assertEqual(self.judge("healthz", 302, b"")[0], 1)
        for page, body in (
            ("healthz", b"<html>Welcome</html>"),
            ("healthz", b""),
            ("healthz", b"ready"),
            ("readyz", b"ok"),
        ):
            self.assertEqual(self.judge(page, 200, body)[0], 1, body)

    def test_full(self) -> None:
        """It lives, and a restart would cut everybody; but it would not serve."""
        self.assertEqual(self.judge("healthz", 503, FULL)[0], 0)
        self.assertEqual(self.judge("readyz", 503, FULL)[0], 1)
        self.assertEqual(self.judge("healthz", 500, FULL)[0], 1)
        self.assertEqual(self.judge("healthz", 503, b"no")[0], 1)

    def test_one_short_line(self) -> None:
        """Whatever stands in the body."""
        text = self.judge("healthz", 500, b"a\r\nb\x1b[31m" + b"x" * 9_999)[1]
        self.assertEqual((text, text.isprintable()), ("127.0.0.1:80: 500", True))
        text = self.judge("healthz", 500, b"a\r\n b" + b"x" * 9_999)[1]
        self.assertTrue(text.startswith("127.0.0.1:80: 500 a bxx"), text)
        self.assertEqual(len(text), 300)


class CommandTests(SynchronousTestCase):
    """Nobody is there."""

    def test_no_socket(self) -> None:
        """One line on standard error, and status 1."""
        self.assertEqual(
            run_command("healthcheck", "--url", "unix:/nonexistent/socket"),
            (1, "", "unix:/nonexistent/socket: No such file or directory\n"),
        )

    def test_every_door_is_tried(self) -> None:
        """Each with its own reason."""
        status, _, err = run_command(
            "healthcheck", "--listen", "unix:/nonexistent/a", "--listen=unix:/nonexistent/b", OCIPROXY_ADMIN_LISTEN=""
        )
        self.assertEqual(status, 1)
        self.assertEqual(err.count("No such file or directory"), 2)
        self.assertEqual(err.count("\n"), 1)

    def test_no_door_that_can_be_asked(self) -> None:
        """The remedy is said."""
        status, _, err = run_command("healthcheck", "--listen", "systemd:")
        self.assertEqual((status, err), (1, "no door that can be asked: systemd: and other endpoints need --url\n"))

    def test_a_configuration_that_cannot_be_read(self) -> None:
        """Said as at the start; a broken file beside the failure that comes of it."""
        self.assertEqual(run_command("healthcheck", "--url", "nonsense")[0], 1)
        self.assertIn("--listen: 'x'", run_command("healthcheck", "--listen", "x")[2])
        err = run_command("healthcheck", "--config", "/nowhere.yaml", LISTEN_ADDR="unix:/nonexistent/a")[2]
        self.assertIn("unix:/nonexistent/a: No such file or directory; --config: '/nowhere.yaml' cannot be read", err)
