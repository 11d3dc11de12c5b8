"""The real AWS SDK, against a server on loopback that speaks as much of ECR as is needed."""

from __future__ import annotations

import base64
import http.server
import json
import sys
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.e2e.processes import free_port, run

URL = "https://123456789012.dkr.ecr.eu-central-1.amazonaws.com"
TARGET = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
SECRET = "s3cret-of-aws"
KEY = "wJalrXUtnFEMI-not-a-real-key"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what the test says, and notes what it was asked."""

    server: Server

    def do_POST(self) -> None:
        """Answer one call."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.headers["X-Amz-Target"], self.headers["Authorization"], body))
        status, answer = self.server.answer
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


class Server(http.server.ThreadingHTTPServer):
    """ECR on a port of loopback."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer: tuple[int, dict[str, Any]] = (200, {})


class EcrTests(SynchronousTestCase):
    """One server, and a child of ours that asks it."""

    timeout = 120

    def setUp(self) -> None:
        """Start the server."""
        self.server = Server()
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(self.server.shutdown)

    def ask(self, asks: int = 1, **env: str) -> dict[str, Any]:
        """Let a child ask, and return what it found."""
        orders = {"account": ["Ecr", {}], "url": URL, "asks": asks}
        environment = {
            "AWS_ENDPOINT_URL_ECR": f"http://127.0.0.1:{self.server.server_port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **env,
        }
        words = [sys.executable, "-W", "error", "-m", "tests.e2e.login_child", json.dumps(orders)]
        found: dict[str, Any] = json.loads(run(words, 90, env=environment))
        self.assertNotIn(KEY, json.dumps(found))
        return found

    def test_the_token_of_aws_is_the_login(self) -> None:
        """One call for all who ask, signed for the region that is in the host's name."""
        token = base64.b64encode(f"AWS:{SECRET}".encode()).decode()
        item = {"authorizationToken": token, "expiresAt": time.time() + 12 * 3600, "proxyEndpoint": URL}
        self.server.answer = (200, {"authorizationData": [item]})
        self.assertEqual(self.ask(asks=4)["answers"], [["AWS", SECRET]] * 4)
        ((target, signature, body),) = self.server.asked
        self.assertEqual((target, json.loads(body)), (TARGET, {}))
        self.assertIn("/eu-central-1/ecr/aws4_request", signature)

    def test_a_refusal_is_told_by_its_code_and_not_by_its_text(self) -> None:
        """AWS quotes what was signed."""
        text = f"The Canonical String was {SECRET}"
        self.server.answer = (400, {"__type": "SignatureDoesNotMatch", "message": text})
        (answer,) = self.ask()["answers"]
        self.assertTrue(answer.endswith("ClientError, SignatureDoesNotMatch"), answer)
        self.assertNotIn(SECRET, answer)

    def test_a_server_that_fails_is_asked_three_times_in_all(self) -> None:
        """Then it is told."""
        self.server.answer = (500, {"message": SECRET})
        (answer,) = self.ask()["answers"]
        self.assertIn("ClientError, 500", answer)
        self.assertEqual(len(self.server.asked), 3)

    def test_no_connection_and_no_identity_are_told_by_their_kind(self) -> None:
        """Within the bound of a reading."""
        found = self.ask(AWS_ENDPOINT_URL_ECR=f"http://127.0.0.1:{free_port()}")
        self.assertIn("EndpointConnectionError", found["answers"][0])
        self.assertLess(found["took_s"], 45)
        found = self.ask(AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
        self.assertIn("NoCredentialsError", found["answers"][0])
        self.assertEqual(self.server.asked, [])
