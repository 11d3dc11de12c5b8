"""One connection: limits, refusals, and that one request never becomes two (RULES A1-A3, A5)."""

from __future__ import annotations

import json
import tempfile
from ipaddress import ip_network

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Echo, Line, client
from txociproxy.web.closing import CUT_S, LINGER_BYTES, LINGER_S
from txociproxy.web.site import Census, DoorLimits, DoorSite, DoorTimes

HOST = b"Host: cache.example\r\n"
GET = b"GET /v2/ HTTP/1.1\r\n" + HOST
SMUGGLED = b"GET /v2/evil/manifests/x HTTP/1.1\r\n" + HOST + b"\r\n"

# What two machines could read differently; each is followed by a request that must never be seen.
AMBIGUOUS: tuple[tuple[str, bytes], ...] = (
    (
        "TE and CL",
        b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "CL and TE",
        b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("two CL", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n"),
    ("two equal CL", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\na=bcd"),
    ("CL list", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 5, 5\r\n\r\na=bcd"),
    ("CL plus sign", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: +0\r\n\r\n"),
    ("CL hex", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: 0x0\r\n\r\n"),
    ("CL endless", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"),
    ("TE identity", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: identity\r\n\r\n"),
    ("TE xchunked", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE two", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("TE 1.0", b"POST /v2/_token HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("space before colon", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length : 0\r\n\r\n"),
    ("obs-fold", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X-A: b\r\n Content-Length: 90\r\n\r\n"),
    ("fold first", b"GET /v2/ HTTP/1.1\r\n" + b" X: y\r\n" + HOST + b"\r\n"),
    ("bare LF head", b"GET /v2/ HTTP/1.1\nHost: cache.example\n\n"),
    ("bare LF field", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X: a\nContent-Length: 90\r\n\r\n"),
    ("bare CR field", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X: a\rContent-Length: 90\r\n\r\n"),
    ("NUL", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n"),
    ("control byte", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"X: a\x01b\r\n\r\n"),
    ("no Host", b"GET /v2/ HTTP/1.1\r\n\r\n"),
    ("two Host", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"Host: other.example\r\n\r\n"),
    ("two equal Host", b"GET /v2/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    ("Host with a path", b"GET /v2/ HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    ("Host empty", b"GET /v2/ HTTP/1.1\r\nHost: \r\n\r\n"),
    ("Host with userinfo", b"GET /v2/ HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    ("absolute form", b"GET http://cache.example/v2/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("authority form", b"CONNECT cache.example:443 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("fragment", b"GET /v2/#x HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("DEL in target", b"GET /v2/\x7f HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("high byte in target", b"GET /v2/\xa0 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("tab in request line", b"GET\t/v2/\tHTTP/1.1\r\n" + HOST + b"\r\n"),
    ("version 0.9", b"GET /v2/\r\n"),
    ("version 2", b"GET /v2/ HTTP/2.0\r\n" + HOST + b"\r\n"),
    ("no colon", b"GET /v2/ HTTP/1.1\r\n" + HOST + b"nonsense\r\n\r\n"),
)

BODIES: tuple[tuple[str, bytes, int], ...] = (
    ("GET with CL", GET + b"Content-Length: 5\r\n\r\nhello", 413),
    ("GET with TE", GET + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 413),
    ("HEAD with CL", b"HEAD /v2/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 413),
    ("GET with a request in its body", GET + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED), 413),
    ("PUT", b"PUT /v2/a/manifests/b HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 405),
    ("PATCH", b"PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n", 405),
    ("POST elsewhere", b"POST /v2/a/blobs/uploads/ HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello", 405),
    ("form too long", b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 65537\r\n\r\n", 413),
)


class OneRequestNeverBecomesTwoTests(SynchronousTestCase):
    """The smuggling table of RULES A1 and A2."""

    def test_ambiguous_heads_are_refused_and_nothing_behind_them_is_read(self) -> None:
        """Each line of the table gets one 400 and its follower is never seen."""
        for name, head in AMBIGUOUS:
            line = Line()
            answer = line.send(head + SMUGGLED)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1, name)
            self.assertEqual((line.status, line.root.seen), (400, []), name)
            self.assertTrue(line.wire.half_closed, name)

    def test_the_verdict_is_the_same_byte_by_byte(self) -> None:
        """How the bytes are cut into pieces changes nothing."""
        for name, head in AMBIGUOUS:
            if len(head) > 1000:
                continue
            line = Line()
            for position in range(len(head)):
                line.send(head[position : position + 1])
            line.send(SMUGGLED)
            self.assertEqual((line.status, line.root.seen), (400, []), name)

    def test_bodies_are_answered_at_the_end_of_the_headers(self) -> None:
        """No body but a small form is taken, whatever is in it."""
        for name, data, status in BODIES:
            line = Line()
            head, _, rest = data.partition(b"\r\n\r\n")
            line.send(head + b"\r\n\r\n")
            self.assertEqual(line.status, status, name)
            answer = line.send(rest + SMUGGLED)
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1, name)
            self.assertEqual(line.root.seen, [], name)

    def test_a_pipelined_get_with_a_body_is_refused_after_the_first_answer(self) -> None:
        """The first request is answered, the second refused, the third never read."""
        line = Line()
        answer = line.send(GET + b"\r\n" + GET + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED)
        self.assertEqual(line.root.seen, [(b"GET", b"/v2/")])
        self.assertEqual([part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]], [b"200", b"413"])

    def test_pipelined_requests_without_bodies_are_all_answered(self) -> None:
        """Plain pipelining works."""
        line = Line()
        answer = line.send((GET + b"\r\n") * 3)
        self.assertEqual(len(line.root.seen), 3)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 3)

    def test_a_request_behind_a_form_is_answered(self) -> None:
        """A form's answer is given while its bytes are being read; what follows is no bare line feed."""
        for framing in (b"Content-Length: 3\r\n\r\na=b", b"Transfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n"):
            line = Line()
            line.send(b"POST /v2/_token HTTP/1.1\r\n" + HOST + framing + GET + b"\r\n" + GET + b"\r\n")
            self.assertEqual([method for method, _ in line.root.seen], [b"POST", b"GET", b"GET"])

    def test_a_bare_line_feed_behind_a_form_is_still_found(self) -> None:
        """Once all that came has been read."""
        line = Line()
        line.send(b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\na=bGET /v2/ HTTP/1.1\n")
        self.assertEqual([part[:3] for part in line.wire.value().split(b"HTTP/1.1 ")[1:]], [b"200", b"400"])


class BodyTests(SynchronousTestCase):
    """What becomes of bodies (RULES A2)."""

    def test_a_put_of_ten_gib_is_answered_before_its_second_mib_without_a_file(self) -> None:
        """The answer is there at the end of the headers and no temporary file is opened."""
        self.patch(tempfile, "TemporaryFile", lambda *_: self.fail("a body was spooled"))
        line = Line()
        line.send(b"PUT /v2/a/blobs/uploads/1 HTTP/1.1\r\n" + HOST + b"Content-Length: 10737418240\r\n\r\n")
        self.assertEqual(line.status, 405)
        self.assertIn(b"Allow: GET, HEAD", line.wire.value())
        for _ in range(32):
            line.send(b"x" * 65536)
        self.assertEqual(line.wire.value().count(b"HTTP/1.1"), 1)

    def test_no_100_continue_invites_a_refused_body(self) -> None:
        """Expect: 100-continue gets the final status alone (RFC 9110, section 10.1.1)."""
        line = Line()
        line.send(b"PUT /v2/a/manifests/b HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        self.assertEqual(line.status, 405)

    def test_a_small_form_arrives_whole_from_memory(self) -> None:
        """The token endpoint's form is read, with a length and in chunks."""
        self.patch(tempfile, "TemporaryFile", lambda *_: self.fail("a body was spooled"))
        for framing in (
            b"Content-Length: 5\r\n\r\na=bcd",
            b"Transfer-Encoding: chunked\r\n\r\n5\r\na=bcd\r\n0\r\n\r\n",
        ):
            line = Line()
            line.send(b"POST /v2/_token HTTP/1.1\r\n" + HOST + framing)
            self.assertEqual(line.root.bodies, [b"a=bcd"])

    def test_a_chunked_form_beyond_64_kib_is_refused(self) -> None:
        """A form without a length has the same limit."""
        line = Line()
        line.send(b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            line.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        line.send(b"0\r\n\r\n")
        self.assertEqual((line.status, line.root.seen), (413, []))

    def test_a_chunked_form_that_comes_in_one_piece_has_the_same_limit(self) -> None:
        """Its end is in the piece that is too much."""
        line = Line()
        head = b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
        answer = line.send(head + b"20000\r\n" + b"x" * 0x20000 + b"\r\n0\r\n\r\n" + SMUGGLED)
        self.assertEqual((line.status, line.root.seen), (413, []))
        self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    def test_a_write_without_a_body_reaches_the_resource(self) -> None:
        """It has nothing to spool, so that its answer is made where all others are."""
        line = Line()
        line.send(b"DELETE /v2/a/manifests/b HTTP/1.1\r\n" + HOST + b"\r\n")
        self.assertEqual(line.root.seen, [(b"DELETE", b"/v2/a/manifests/b")])


class LimitTests(SynchronousTestCase):
    """How long a head may be (RULES A3)."""

    def test_60_kib_of_authorization_pass(self) -> None:
        """Tokens are long."""
        line = Line()
        line.send(GET + b"Authorization: Bearer " + b"x" * 60 * 1024 + b"\r\n\r\n")
        self.assertEqual(line.status, 200)

    def test_heads_below_the_limits_pass(self) -> None:
        """127 KiB in one line, 200 KiB in two."""
        for sizes in ((127,), (100, 100)):
            line = Line()
            line.send(GET + b"".join(b"X-A: " + b"x" * size * 1024 + b"\r\n" for size in sizes) + b"\r\n")
            self.assertEqual(line.status, 200, sizes)

    def test_heads_above_the_limits_get_431_in_the_form_of_the_spec(self) -> None:
        """129 KiB in one line, 10 MiB in one line, 300 KiB in three, 600 fields."""
        for sizes in ((129,), (10240,), (100, 100, 100)):
            line = Line()
            line.send(GET)
            for size in sizes:
                line.send(b"X-A: " + b"x" * size * 1024 + b"\r\n")
            self.assertEqual(line.status, 431, sizes)
            body = json.loads(line.wire.value().partition(b"\r\n\r\n")[2])
            self.assertEqual(body["errors"][0]["code"], "SIZE_INVALID")
        line = Line()
        line.send(GET + b"X-A: b\r\n" * 600 + b"\r\n")
        self.assertEqual((line.status, line.root.seen), (431, []))

    def test_a_target_above_the_limit_gets_414(self) -> None:
        """The status line was not read yet, so it is the target that is too long."""
        line = Line()
        line.send(b"GET /" + b"x" * 200 * 1024)
        self.assertEqual(line.status, 414)


class LingeringTests(SynchronousTestCase):
    """A refusal can be read: the connection is not closed on unread input."""

    def refused(self) -> Line:
        """Return a connection that has just been refused."""
        line = Line()
        line.send(b"GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        self.assertTrue(line.wire.half_closed)
        self.assertFalse(line.wire.disconnecting)
        return line

    def test_it_closes_after_two_seconds(self) -> None:
        """The client's time to read is bounded, however much it sends."""
        line = self.refused()
        line.clock.advance(LINGER_S - 0.1)
        line.send(b"x")
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(0.2)
        self.assertTrue(line.wire.disconnecting)
        line.clock.advance(20)
        self.assertTrue(line.wire.disconnected)

    def test_it_aborts_after_too_many_bytes(self) -> None:
        """What is swallowed is bounded, and not kept."""
        line = self.refused()
        for _ in range(LINGER_BYTES // 65536 + 1):
            line.send(b"x" * 65536)
        self.assertTrue(line.wire.disconnected)
        self.assertEqual(line.channel._buffer, b"")

    def test_nothing_is_left_behind_when_the_client_closes(self) -> None:
        """No timer survives."""
        line = self.refused()
        line.hang_up()
        self.assertEqual(line.clock.getDelayedCalls(), [])


class ConnectionCapTests(SynchronousTestCase):
    """How many connections there may be (RULES A5)."""

    def test_one_connection_too_many_gets_503_and_is_closed(self) -> None:
        """The cap per client address holds; a place given back is free again."""
        first = Line(DoorLimits(max_connections_per_client=1))
        second = Line(site=first.site)
        second.send(GET)
        self.assertEqual(second.status, 503)
        self.assertTrue(second.wire.half_closed)
        second.hang_up()
        first.hang_up()
        self.assertEqual(first.site.census.connections, 0)
        third = Line(site=first.site)
        self.assertEqual(third.wire.value(), b"")

    def test_the_cap_of_all_connections_holds(self) -> None:
        """It counts across addresses."""
        first = Line(DoorLimits(max_connections=1))
        for host in ("192.0.2.1", "192.0.2.2"):
            second = Line(site=first.site, peer=client(host))
            answer = second.send(GET + b"\r\n" + SMUGGLED)
            self.assertEqual((second.status, second.root.seen), (503, []))
            self.assertEqual(answer.count(b"HTTP/1.1 "), 1)

    def test_who_is_turned_away_and_says_nothing_is_told_soon(self) -> None:
        """It has no place, so nothing else bounds how many of these there are."""
        first = Line(DoorLimits(max_connections=1))
        second = Line(site=first.site)
        first.clock.advance(LINGER_S)
        self.assertEqual((second.status, second.wire.half_closed), (503, True))
        first.clock.advance(LINGER_S)
        self.assertTrue(second.wire.disconnecting)
        self.assertFalse(first.wire.disconnecting)

    def test_a_trusted_proxy_has_no_limit_of_its_own(self) -> None:
        """Its address stands for many clients; but all places together are as many as ever."""
        reached: list[str] = []
        trusted = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
        census = Census(DoorLimits(4, 1), reached.append, trusted)
        site = DoorSite(Echo(), Clock(), census)
        for host in ("192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1", "198.51.100.1", "192.0.2.1"):
            Line(site=site, peer=client(host))
        self.assertEqual((census.connections, reached), (4, ["max_connections"]))
        Line(site=site, peer=client("198.51.100.1"))
        self.assertEqual(census.uses()["max_connections_per_client"], (1, 1))

    def test_who_is_no_trusted_proxy_has_its_limit(self) -> None:
        """Trust is for networks that were named."""
        census = Census(DoorLimits(4, 1), trusted=(ip_network("192.0.2.0/24"),))
        site = DoorSite(Echo(), Clock(), census)
        for _ in range(2):
            Line(site=site, peer=client("198.51.100.1"))
        self.assertEqual(census.connections, 1)

    def test_draining_closes_what_is_idle_and_the_rest_after_its_answer(self) -> None:
        """The end of the process waits for answers, not for connections."""
        idle = Line()
        between = Line(site=idle.site)
        between.send(GET + b"\r\n")
        half = Line(site=idle.site)
        half.send(GET)
        idle.site.census.drain()
        self.assertTrue(idle.wire.disconnecting)
        self.assertTrue(between.wire.disconnecting)
        self.assertFalse(half.wire.disconnecting)
        self.assertIn(b"Connection: close", half.send(b"\r\n"))
        self.assertTrue(half.wire.disconnecting)

    def test_draining_ends_a_connection_whose_answer_is_not_over(self) -> None:
        """It was good for more requests when this one came, and is not any more."""
        for begun in (False, True):
            line = Line()
            line.root.waits = True
            line.send(GET + b"\r\n")
            request = line.channel.requests[0]
            if begun:
                request.write(b"x")
            line.site.census.drain()
            self.assertFalse(line.wire.disconnecting)
            request.finish()
            self.assertTrue(line.wire.disconnecting)
            self.assertEqual(b"Connection: close" in line.wire.value(), not begun)

    def test_who_is_turned_away_is_told_to_the_owner_once_a_minute(self) -> None:
        """Whoever attacks must not fill the log."""
        first = Line(DoorLimits(max_connections=1))
        with capturedLogs() as events:
            for _ in range(3):
                Line(site=first.site)
            first.clock.advance(60)
            Line(site=first.site)
        warnings = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertEqual([event["client"] for event in warnings], ["192.0.2.1"] * 2)


class TimeTests(SynchronousTestCase):
    """How long a client may take for a head, and between two requests."""

    def test_a_connection_that_says_nothing_is_closed(self) -> None:
        """Its first byte must come within the time for a head; then that is counted anew."""
        line = Line()
        line.clock.advance(19)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertTrue(line.wire.disconnecting)
        line.clock.advance(CUT_S)
        self.assertTrue(line.wire.disconnected)

    def test_a_client_may_rest_between_two_requests(self) -> None:
        """For a minute, or what is configured."""
        for times, idle_s in ((None, 60), (DoorTimes(header_s=5, idle_s=7), 7)):
            line = Line(times=times)
            line.send(GET + b"\r\n")
            line.clock.advance(idle_s - 1)
            line.send(GET + b"\r\n")
            line.clock.advance(idle_s - 0.5)
            self.assertFalse(line.wire.disconnecting)
            line.clock.advance(0.5)
            self.assertTrue(line.wire.disconnecting)

    def test_head_and_form_have_twenty_seconds_from_their_first_byte(self) -> None:
        """However often another byte comes; the first request as well as a later one."""
        form = b"POST /v2/_token HTTP/1.1\r\n" + HOST + b"Content-Length: 99\r\n\r\n"
        for before in (b"", GET + b"\r\n"):
            for data in (b"G", GET + b"X: " + b"x" * 50, form):
                line = Line()
                line.clock.advance(5)
                line.send(before)
                line.clock.advance(10)
                line.send(data)
                for _ in range(9):
                    line.clock.advance(2)
                    line.send(b"x")
                self.assertFalse(line.wire.disconnecting)
                line.clock.advance(2)
                self.assertTrue(line.wire.disconnecting, (before, data))

    def test_a_head_that_waits_behind_an_answer_counts_from_there(self) -> None:
        """Nobody has read it before; and half of one does not make the connection idle."""
        line = Line()
        line.root.waits = True
        line.send(GET + b"\r\n" + GET)
        line.clock.advance(100)
        line.channel.requests[0].finish()
        line.clock.advance(19)
        self.assertFalse(line.wire.disconnecting)
        line.clock.advance(1)
        self.assertTrue(line.wire.disconnecting)

    def test_an_answer_may_take_its_time(self) -> None:
        """It has other clocks."""
        line = Line()
        line.root.waits = True
        line.send(GET + b"\r\n")
        line.clock.advance(1000)
        self.assertFalse(line.wire.disconnecting)


class NegotiationTests(SynchronousTestCase):
    """What a TLS door offers."""

    def test_what_is_faster_comes_first(self) -> None:
        """The first of ours that the client has too is taken (RULES A7)."""
        self.assertEqual(Line().site.acceptableProtocols(), [b"http/1.1", b"h2"])


class PersistenceTests(SynchronousTestCase):
    """When another request may follow (RFC 9112, section 9.3)."""

    def test_close_is_found_among_other_tokens(self) -> None:
        """Twisted would see the first line split at spaces only."""
        for field in (
            b"Connection: close\r\n",
            b"Connection: te,close\r\n",
            b"Connection: te\r\nConnection: Close\r\n",
        ):
            line = Line()
            answer = line.send(GET + field + b"\r\n")
            self.assertTrue(line.wire.disconnecting, field)
            self.assertIn(b"Connection: close", answer)

    def test_http_1_0_needs_no_host_and_closes(self) -> None:
        """An old client gets one answer."""
        line = Line()
        line.send(b"GET /v2/ HTTP/1.0\r\n\r\n")
        self.assertEqual(line.status, 200)
        self.assertTrue(line.wire.disconnecting)
