"""Where an upstream redirects to is its affair: what that server says in refusal may repeat the signed address."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.house.whole import WholeHouse
from tests.upstreams.fakes import BLOB, URL, Answer, answer

SIGNATURE = "c2lnbmF0dXJl"
ELSEWHERE = f"https://cdn.example.net/object?X-Amz-Signature={SIGNATURE}"
PATH = f"/v2/team/app/blobs/{BLOB}"


class SignatureTests(SynchronousTestCase):
    """A CDN that refuses, and says what it was asked with, as S3 does."""

    def handle(self, method: str, url: str, headers: Headers) -> Answer:
        """Redirect; then refuse."""
        if url.startswith(URL):
            return answer(307, location=ELSEWHERE)
        page = f"<Error><SignatureProvided>{SIGNATURE}</SignatureProvided></Error>".encode()
        return answer(self.code, page, content_type="application/xml", retry_after="7", x_amz_id_2=SIGNATURE)

    def test_no_client_sees_what_the_address_was_signed_with(self) -> None:
        """Neither in the answer to a whole blob nor to a part.

        The status and the wait are the server's own, but where it is no word about the client (RULES D1, E11).
        """
        for mode in ("transparent", "authenticated"):
            for self.code in (400, 401, 403, 404, 429, 503):
                for fields in ((), (("Range", "bytes=-5"),)):
                    told = WholeHouse(self.handle, mode=mode).ask("GET", PATH, *fields)
                    case = (mode, self.code, fields)
                    self.assertNotIn(SIGNATURE, f"{told.headers} {told.body!r}", case)
                    self.assertIn(b'"errors"', told.body, case)
                    lost = self.code in ((401, 403) if mode == "transparent" else (503,))
                    self.assertEqual(told.status, 502 if lost or self.code >= 500 else self.code, case)
                    self.assertEqual(told.get("Retry-After"), None if lost else "7", case)
