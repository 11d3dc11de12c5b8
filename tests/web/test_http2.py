"""HTTP/2 at a door: found by its preface, under the rules of HTTP/1.1 (RULES A1-A3, A7)."""

from __future__ import annotations

import tempfile

from h2.errors import ErrorCodes
from twisted.trial.unittest import SynchronousTestCase

from tests.web.doubles import Line, Registry, serve
from tests.web.http2_client import Bodies, Client, bodies_site, content
from txociproxy.oci.names import Digest
from txociproxy.web.channel import Channel
from txociproxy.web.http2.connection import Connection
from txociproxy.web.http2.frames import PREFACE
from txociproxy.web.http2.heads import read_head
from txociproxy.web.http2.limits import MAX_FORMS_BYTES, MAX_HEAD_BYTES, MAX_STREAMS
from txociproxy.web.site import Census, DoorLimits, DoorSite

HOST = ("host", "cache.example")
# Heads that two machines could read differently; h2 refuses some of them with the whole connection.
AMBIGUOUS: tuple[tuple[str, dict[str, object], tuple[tuple[str, str], ...]], ...] = (
    ("absolute form", {"path": "http://cache.example/v2/"}, ()),
    ("asterisk form", {"method": "OPTIONS", "path": "*"}, ()),
    ("empty path", {"path": ""}, ()),
    ("fragment", {"path": "/v2/#x"}, ()),
    ("space in target", {"path": "/v2/ HTTP/1.1"}, ()),
    ("DEL in target", {"path": "/v2/\x7f"}, ()),
    ("high byte in target", {"path": "/v2/\xa0"}, ()),
    ("CRLF in target", {"path": "/v2/\r\nX: y"}, ()),
    ("percent left after decoding", {"path": "/v2/%2561/manifests/b"}, ()),
    ("method is none", {"method": "GE T"}, ()),
    ("method with CRLF", {"method": "GET /x HTTP/1.1\r\n"}, ()),
    ("no Host", {"authority": None}, ()),
    ("two Host", {"authority": None}, (HOST, ("host", "other.example"))),
    ("two equal Host", {"authority": None}, (HOST, HOST)),
    ("authority and two Host", {}, (HOST, HOST)),
    ("authority and another Host", {}, (("host", "other.example"),)),
    ("authority with a path", {"authority": "a/b"}, ()),
    ("authority with userinfo", {"authority": "a@b"}, ()),
    ("authority empty", {"authority": ""}, ()),
    ("control byte", {}, (("x-a", "a\x01b"),)),
    ("NUL", {}, (("x-a", "a\0b"),)),
    ("LF", {}, (("x-a", "a\nb"),)),
    ("name with a colon", {}, (("x:a", "b"),)),
    ("name that is no token", {}, (("x(a", "b"),)),
    ("upper case", {}, (("X-A", "b"),)),
    ("Connection", {}, (("connection", "close"),)),
    ("Transfer-Encoding", {}, (("transfer-encoding", "chunked"),)),
    ("TE", {}, (("te", "gzip"),)),
    ("CL plus sign", {}, (("content-length", "+0"),)),
    ("two CL", {"method": "POST", "path": "/v2/_token"}, (("content-length", "0"), ("content-length", "5"))),
    ("CL list", {"method": "POST", "path": "/v2/_token"}, (("content-length", "5, 5"),)),
    ("CL without a body", {"method": "POST", "path": "/v2/_token"}, (("content-length", "5"),)),
    ("CONNECT", {"method": "CONNECT", "path": "cache.example:443"}, ()),
)


class SwitchTests(SynchronousTestCase):
    """How it is found out what a client speaks."""

    def test_the_preface_is_found_in_any_pieces(self) -> None:
        """And a request behind it in the same bytes is answered."""
        for size_bytes in (1, 2, 3, 5, 1000):
            client = Client(greets=False)
            stream_id = client.begin()
            data = client.machine.data_to_send()
            for start in range(0, len(data), size_bytes):
                client.door.dataReceived(data[start : start + size_bytes])
            client.read()
            self.assertEqual((client.got[stream_id].status, client.got[stream_id].body), (200, b"ok"), size_bytes)

    def test_no_more_than_three_bytes_are_held_back(self) -> None:
        """The fourth decides."""
        for first, kind in ((b"PRI ", Connection), (b"PRIX", Channel), (b"PO", Channel), (b"G", Channel)):
            line = Line()
            for byte in first:
                self.assertIsNone(line.door.spoken)
                line.send(bytes([byte]))
            self.assertIsInstance(line.door.spoken, kind, first)

    def test_methods_that_begin_alike_are_requests_of_http_1_1(self) -> None:
        """Byte by byte, and nothing of them is lost."""
        for method in (b"P", b"PR", b"PRI", b"PUT", b"POST"):
            line = Line()
            for byte in method + b" /v2/_token HTTP/1.1\r\nHost: a\r\n\r\n":
                line.send(bytes([byte]))
            self.assertEqual(
                line.root.seen if method != b"PRI" else [(b"PRI", b"/v2/_token")], [(method, b"/v2/_token")]
            )

    def test_what_looks_like_the_preface_and_is_none_is_refused(self) -> None:
        """h2 says goodbye, and the connection is closed."""
        line = Line()
        line.send(PREFACE[:10] + b"1" + PREFACE[11:])
        self.assertTrue(line.wire.half_closed)
        self.assertEqual(line.root.seen, [])

    def test_what_was_agreed_on_under_tls_counts(self) -> None:
        """Nobody has to guess."""
        client = Client(negotiated=b"h2")
        self.assertEqual(client.ask().status, 200)
        other = Client(negotiated=b"http/1.1", greets=False)
        other.door.dataReceived(PREFACE)
        self.assertTrue(other.wire.value().startswith(b"HTTP/1.1 400"))
        third = Client(negotiated=b"h2", greets=False)
        third.door.dataReceived(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
        self.assertTrue(third.wire.half_closed)
        self.assertEqual((other.root.seen, third.root.seen), ([], []))


class RequestTests(SynchronousTestCase):
    """Requests and answers."""

    def test_a_request_and_its_answer(self) -> None:
        """Target, Host, protocol and address arrive; the stream ends, and the connection goes on."""
        client = Client()
        for number in (1, 2):
            got = client.ask("GET", "/v2/?a=b", ("x-a", "b"), ("x-a", "c"))
            self.assertEqual((got.status, got.body, got.is_whole, got.reset), (200, b"ok", True, None))
            self.assertEqual(len(client.root.seen), number)
        client.root.waits = True
        stream_id = client.begin("GET", "/v2/?a=b", ("x-a", "b"), ("x-a", "c"))
        client.flush()
        request = client.request_of(stream_id)
        self.assertEqual((request.uri, request.path, request.clientproto), (b"/v2/?a=b", b"/v2/", b"HTTP/2"))
        self.assertEqual(request.requestHeaders.getRawHeaders(b"Host"), [b"cache.example"])
        self.assertEqual(request.requestHeaders.getRawHeaders(b"X-A"), [b"b", b"c"])
        self.assertEqual((request.getClientAddress(), request.isSecure()), (client.wire.getPeer(), False))

    def test_host_will_do_for_authority(self) -> None:
        """As an intermediary may send it (RFC 9113 §8.3.1)."""
        client = Client()
        stream_id = client.begin("GET", "/v2/", HOST, authority=None)
        client.flush()
        self.assertEqual(client.got[stream_id].status, 200)

    def test_head_has_no_body(self) -> None:
        """But the length that a GET would have."""
        registry = Registry()
        registry.cache.verdict = serve(b"x" * 100)
        client = Client(DoorSite(registry.root, registry.clock, Census(DoorLimits())))
        digest = Digest.of(b"x" * 100)
        for method, body in (("HEAD", b""), ("GET", b"x" * 100)):
            got = client.ask(method, f"/v2/library/a/blobs/{digest}")
            self.assertEqual((got.status, got.body, got.is_whole), (200, body, True))
            self.assertEqual(got.fields["content-length"], "100")

    def test_fields_of_a_connection_do_not_leave(self) -> None:
        """Also those that an answer was given for HTTP/1.1 (RFC 9113 §8.2.2)."""
        client = Client()
        client.root.waits = True
        stream_id = client.begin()
        client.flush()
        request = client.request_of(stream_id)
        for name in ("Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "X-Kept"):
            request.setHeader(name, "close")
        request.write(b"x")
        request.finish()
        client.read()
        self.assertEqual(set(client.got[stream_id].fields), {"date", "x-kept"})

    def test_a_bad_request_ends_its_stream_alone(self) -> None:
        """The error has the form of the spec; what was to close the connection does not show."""
        registry = Registry()
        client = Client(DoorSite(registry.root, registry.clock, Census(DoorLimits())))
        got = client.ask("GET", "/v2/a/manifests/b?ns=a&ns=b")
        self.assertEqual((got.status, got.is_whole), (400, True))
        self.assertNotIn("connection", got.fields)
        self.assertEqual(client.ask("GET", "/healthz").status, 200)

    def test_streams_are_answered_side_by_side(self) -> None:
        """One that waits holds up nobody."""
        client = Client()
        client.root.waits = True
        first = client.begin()
        client.flush()
        client.root.waits = False
        self.assertEqual(client.ask().body, b"ok")
        self.assertIsNone(client.got[first].status)


class RuleTests(SynchronousTestCase):
    """One request never becomes two (RULES A1, A2)."""

    def test_ambiguous_heads_are_refused(self) -> None:
        """With 400 on their stream, or with the whole connection; nobody behind the door sees them."""
        for name, changes, fields in AMBIGUOUS:
            registry = Registry()
            client = Client(DoorSite(registry.root, registry.clock, Census(DoorLimits())))
            head = {"method": "GET", "path": "/v2/", "authority": "cache.example", **changes}
            stream_id = client.begin(str(head["method"]), str(head["path"]), *fields, authority=head["authority"])  # type: ignore[arg-type]
            client.flush()
            got = client.got[stream_id]
            if client.goaway is None:
                self.assertEqual((got.status, got.is_whole), (400, True), name)
                self.assertEqual(client.ask("GET", "/healthz").status, 200, name)
            else:
                self.assertEqual((client.goaway[1], got.status), (ErrorCodes.PROTOCOL_ERROR, None), name)
                self.assertTrue(client.wire.half_closed, name)

    def test_what_h2_refuses_would_be_refused_without_it(self) -> None:
        """What it looks for differs between its versions."""
        good = [(b":method", b"GET"), (b":path", b"/v2/"), (b":scheme", b"http"), (b":authority", b"cache.example")]
        self.assertIsNone(read_head([*good, (b"host", b"cache.example"), (b"content-length", b"0")])[1])
        for more in (
            [(b"host", b"other.example")],
            [(b"host", b"cache.example")] * 2,
            [(b"content-length", b"0")] * 2,
            [(b"content-length", b"0"), (b"content-length", b"5")],
            [(b"transfer-encoding", b"chunked")],
            [(b":protocol", b"websocket")],
            [(b"x a", b"b")],
            [(b"x-a", b"a\r\nb: c")],
        ):
            error = read_head([*good, *more])[1]
            self.assertEqual(error and error.status, 400, more)

    def test_bodies_are_answered_at_the_end_of_the_head(self) -> None:
        """And the client is told to stop; the connection goes on."""
        client = Client()
        for method, path, length, status in (
            ("PUT", "/v2/a/manifests/b", "5", 405),
            ("POST", "/v2/a/blobs/uploads/", "5", 405),
            ("GET", "/v2/", "5", 413),
            ("HEAD", "/v2/", "5", 413),
            ("POST", "/v2/_token", "65537", 413),
        ):
            stream_id = client.begin(method, path, ("content-length", length), ends=False)
            client.flush()
            got = client.got[stream_id]
            self.assertEqual((got.status, got.is_whole, got.reset), (status, True, ErrorCodes.NO_ERROR), method)
            self.assertEqual(got.body == b"", method == "HEAD")
        self.assertEqual((client.root.seen, client.goaway), ([], None))
        self.assertEqual(client.ask().status, 200)

    def test_a_body_that_nobody_announced_is_refused_with_its_first_byte(self) -> None:
        """A request may end with an empty frame, as some intermediaries end it."""
        client = Client()
        for data, status in ((b"", 200), (b"x", 413)):
            stream_id = client.begin(ends=False)
            client.machine.send_data(stream_id, data, end_stream=not data)
            client.flush()
            self.assertEqual(client.got[stream_id].status, status)
        write = client.begin("PUT", "/v2/a/manifests/b", ends=False)
        client.machine.send_data(write, b"x" * 16384)
        client.flush()
        self.assertEqual(client.got[write].status, 405)
        self.assertEqual(len(client.root.seen), 1)

    def test_a_form_arrives_from_memory(self) -> None:
        """With a length and without; up to 64 KiB, beyond the window of a stream."""
        self.patch(tempfile, "TemporaryFile", lambda *_: self.fail("a body was spooled"))
        client = Client()
        for fields in ((), (("content-length", "65536"),)):
            form = b"a=" + b"b" * 65534
            stream_id = client.begin("POST", "/v2/_token", *fields, ends=False)
            for start in range(0, len(form), 8192):
                client.machine.send_data(stream_id, form[start : start + 8192], end_stream=start + 8192 == len(form))
                client.flush()
            self.assertEqual(client.got[stream_id].body, b"ok")
            self.assertEqual(client.root.bodies.pop(), form)

    def test_a_form_without_a_length_has_the_same_limit(self) -> None:
        """It is refused while it comes; others go on."""
        client = Client()
        stream_id = client.begin("POST", "/v2/_token", ends=False)
        for _ in range(5):
            if client.got[stream_id].status is None:
                client.machine.send_data(stream_id, b"x" * 16384)
                client.flush()
        self.assertEqual((client.got[stream_id].status, client.got[stream_id].reset), (413, ErrorCodes.NO_ERROR))
        self.assertEqual((client.ask().status, len(client.root.seen)), (200, 1))

    def test_all_forms_together_are_bounded(self) -> None:
        """A hundred streams are not a hundred forms."""
        client = Client()
        ids = [client.begin("POST", "/v2/_token", ends=False) for _ in range(8)]
        for stream_id in ids:
            for _ in range(3):
                if client.got[stream_id].status is None:
                    client.machine.send_data(stream_id, b"x" * 16384)
                    client.flush()
        refused = [client.got[stream_id].status for stream_id in ids]
        self.assertEqual(refused.count(None), MAX_FORMS_BYTES // (3 * 16384))
        self.assertEqual(set(refused), {None, 413})

    def test_a_form_may_wait_for_a_word(self) -> None:
        """Expect: 100-continue (RFC 9110, section 10.1.1); a refused body is not invited."""
        client = Client()
        for path, informational, status in (("/v2/_token", [100], None), ("/v2/a/blobs/uploads/", [], 405)):
            fields = (("expect", "100-continue"), ("content-length", "3"))
            stream_id = client.begin("POST", path, *fields, ends=False)
            client.flush()
            self.assertEqual(
                (client.got[stream_id].informational, client.got[stream_id].status), (informational, status)
            )


class HeadLimitTests(SynchronousTestCase):
    """How long a head may be (RULES A3)."""

    def test_100_kib_of_authorization_pass(self) -> None:
        """And 127 KiB, and 200 KiB in two."""
        for sizes in ((100,), (127,), (100, 100)):
            client = Client()
            fields = [("authorization", "Bearer " + "x" * size * 1024) for size in sizes]
            self.assertEqual(client.ask("GET", "/v2/", *fields).status, 200, sizes)

    def test_a_field_or_target_that_is_too_long_ends_its_stream(self) -> None:
        """As it ends a connection of HTTP/1.1."""
        client = Client()
        self.assertEqual(client.ask("GET", "/v2/", ("x-a", "x" * 129 * 1024)).status, 431)
        self.assertEqual(client.ask("GET", "/v2/", *[("x-a", "b")] * 501).status, 431)
        self.assertEqual(client.ask("GET", "/" + "x" * 129 * 1024).status, 414)
        self.assertEqual((client.ask().status, len(client.root.seen)), (200, 1))

    def test_a_list_that_is_too_long_ends_the_connection(self) -> None:
        """It is not read to its end, so compression cannot go on."""
        client = Client()
        self.assertEqual(client.machine.remote_settings.max_header_list_size, MAX_HEAD_BYTES)
        self.assertEqual(client.machine.remote_settings.max_concurrent_streams, MAX_STREAMS)
        client.ask("GET", "/v2/", *[("x-a", "x" * 100 * 1024)] * 3)
        self.assertEqual(client.goaway, (0, ErrorCodes.ENHANCE_YOUR_CALM))
        self.assertEqual((client.root.seen, client.wire.half_closed), ([], True))


class BodyTests(SynchronousTestCase):
    """Bodies from a Reader."""

    def test_bodies_of_many_streams_arrive_whole(self) -> None:
        """Each its own."""
        root, site = bodies_site()
        client = Client(site)
        sizes = (0, 1, 65_535, 65_536, 300_000, 2_000_000)
        ids = {client.begin("GET", f"/{size}"): size for size in sizes}
        client.flush()
        for stream_id, size in ids.items():
            got = client.got[stream_id]
            self.assertEqual((got.is_whole, got.body == content(size)), (True, True), size)
        self.assertEqual(set(root.ends.values()), {"finished"})
        self.assertIsInstance(root, Bodies)
