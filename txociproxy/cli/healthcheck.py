"""``ociproxy healthcheck``: does the proxy of this configuration live, and would it serve?"""

from __future__ import annotations

import argparse
import ssl
from collections.abc import Mapping
from typing import Final

from txociproxy.cli.answer import Answer
from txociproxy.cli.places import Place, place_of_url, places_said
from txociproxy.cli.waiting import Deadline, WantsCertificate, WireError
from txociproxy.cli.wire import Wire, ask

MAX_BODY_BYTES: Final = 64 * 1024
# What our pages say; a server that answers everything with 200 says something else.
GOOD: Final = {"healthz": "ok", "readyz": "ready"}
_NOWHERE: Final = "no door that can be asked: systemd: and other endpoints need --url"


def healthcheck(said: argparse.Namespace, environ: Mapping[str, str]) -> Answer:
    """Ask, and say in one line what was found.

    :param said: ``ready``, ``url``, ``config``, ``listen``, ``admin_listen``, ``timeout``.
    """
    trouble = None
    if said.url is not None:
        try:
            places: tuple[Place, ...] = (place_of_url(said.url),)
        except ValueError as error:
            return Answer(1, str(error))
    else:
        from txociproxy.yamlfile import ConfigError

        options = {"config": said.config, "listen": said.listen, "admin-listen": said.admin_listen}
        try:
            places, trouble = places_said(options, environ)
        except ConfigError as error:
            return Answer(1, str(error))
    answer = _first_answer(places, "readyz" if said.ready else "healthz", said.timeout)
    if answer.status and trouble is not None:
        return Answer(1, f"{answer.text}; {trouble}")
    return answer


def _first_answer(places: tuple[Place, ...], page: str, within_s: float) -> Answer:
    """Ask one door after another until one answers, or time is over."""
    deadline = Deadline.after(within_s)
    failures = []
    for place in places:
        try:
            return _asked(place, page, deadline)
        except (WireError, OSError) as error:
            failures.append(f"{place.text}: {getattr(error, 'strerror', None) or error}")
    return Answer(1, "; ".join(failures) or _NOWHERE)


def _asked(place: Place, page: str, deadline: Deadline) -> Answer:
    """Ask one door.

    :raises WireError: it does not answer.
    :raises OSError: nobody is there.
    """
    wire = Wire(place, deadline, _any_certificate() if place.tls else None)
    try:
        try:
            wire.connect()
        except WantsCertificate:
            return _lives(place, page)
        if place.wants_certificate:
            # TLS 1.3 tells only later that a certificate was missing; its handshake is an answer of the process.
            return _lives(place, page)
        reply = ask(wire, f"/{page}", {"Connection": "close"}, deadline)
        body = reply.whole(MAX_BODY_BYTES)
    finally:
        wire.end()
    return judged(place, page, reply.status, body)


def judged(place: Place, page: str, status: int, body: bytes) -> Answer:
    """Say what an answer means: 200, in our own words.

    A proxy that turns us away since it has all the connections that it may have does live; to restart it would cut
    them all.
    """
    words = " ".join(body.decode("ascii", "replace").split())
    found = f"{place.text}: {status} {words if words.isprintable() else ''}"[:300].rstrip()
    is_good = status == 200 and words == GOOD[page]
    is_full = page == "healthz" and status == 503 and b"TOOMANYREQUESTS" in body
    return Answer(0 if is_good or is_full else 1, found)


def _lives(place: Place, page: str) -> Answer:
    """Say what a door lets us know that wants a certificate of us."""
    if page == "healthz":
        return Answer(0, f"{place.text}: speaks TLS, with clients that have a certificate")
    return Answer(1, f"{place.text}: wants a client certificate; configure admin_listen and /readyz is there")


def _any_certificate() -> ssl.SSLContext:
    """Return TLS without belief in anybody.

    We ask our own machine, by an address that the certificate is hardly for, and tell nothing that is secret; a
    certificate that has run out is worth an alert, but a restart would not mend it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
