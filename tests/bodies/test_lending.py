"""Small bodies that are read whole."""

from __future__ import annotations

import os

from twisted.internet.defer import CancelledError, Deferred

from tests.bodies.scene import DATA, BodyCase, SlowBody
from tests.doubles import InlineWorkers
from txociproxy.bodies.files import FileBody
from txociproxy.bodies.lending import whole
from txociproxy.oci.errors import BodyLost


class WholeTests(BodyCase):
    """Reading a body whole borrows it only."""

    def test_whole_gives_all_bytes_and_leaves_the_body_as_it_was(self) -> None:
        """It can still be followed."""
        fd = self.file()
        body = FileBody(fd, len(DATA), InlineWorkers(), promised=1)
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(whole(body))), DATA)
        os.fstat(fd)
        body.close()
        self.assert_closed(fd)

    def test_whole_waits_and_may_fail_or_be_cancelled(self) -> None:
        """And leaves the body then too."""
        bodies = [SlowBody(2, promised=1) for _ in range(3)]
        results = [Deferred.fromCoroutine(whole(body)) for body in bodies]
        for body in bodies:
            body.come(b"a")
        bodies[0].come(b"b")
        self.assertEqual(self.successResultOf(results[0]), b"ab")
        bodies[1].lose()
        self.failureResultOf(results[1], BodyLost)
        results[2].cancel()
        self.failureResultOf(results[2], CancelledError)
        self.assertEqual([body.closed for body in bodies], [0, 0, 0])
        for body in bodies:
            body.close()
        self.assertEqual([body.closed for body in bodies], [1, 1, 1])
