"""What a client takes: all its Accept lines as one value that can be compared and kept (RULES E7)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from txociproxy.oci.manifests import MANIFEST_TYPES, SCHEMA1_TYPES, bare_media_type

AcceptClass = frozenset[str]

EVERYTHING: AcceptClass = frozenset({"*/*"})

# Clients send six; a list without end would live in every pointer.
MAX_TYPES = 32
MAX_TYPE_BYTES = 128

_ANY = frozenset({"*/*", "application/*"})
_MODERN = frozenset(MANIFEST_TYPES)
# Docker lists application/json with the two names of schema1: it was the type of the unsigned form.
_OLD = SCHEMA1_TYPES | {"application/json"}
_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+|\*)|\*/\*")
# One element of a list; commas in quotes belong to it.  An open quote reaches to the end, which keeps this linear.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)
# RFC 9110 §12.4.2: a weight of nothing says "not this".
_REFUSED = re.compile(r";[ \t]*q[ \t]*=[ \t]*0(?:\.0{0,3})?[ \t]*(?:;|\Z)", re.IGNORECASE)


def accept_class(lines: Iterable[str]) -> AcceptClass:
    """Return the class of a request from the values of all its Accept lines, in any order."""
    asked = {media_type for line in lines for media_type in _media_types(line)}
    if not asked or asked & _ANY:
        return EVERYTHING
    # Old clients name schema1 beside what they would rather have; that must not make a class of its own.
    if asked & _MODERN:
        asked -= _OLD
    return frozenset(sorted(asked)[:MAX_TYPES])


def _media_types(line: str) -> Iterable[str]:
    """Give the media types of one line that are wanted and well formed."""
    for element in _ELEMENT.findall(line):
        media_type = bare_media_type(element)
        if len(media_type) <= MAX_TYPE_BYTES and _MEDIA_TYPE.fullmatch(media_type) and not _REFUSED.search(element):
            yield media_type


def answers(pointer: AcceptClass, media_type: str, asked: AcceptClass) -> bool:
    """Say whether what upstream gave to one class is right for another.

    A narrower ask never answers a wider one, else one old client gives amd64 to arm64 nodes.

    :param pointer: the class that upstream was asked with.
    :param media_type: what it answered.
    :param asked: the class of this request.
    """
    if asked == pointer:
        return True
    return (pointer == EVERYTHING or asked < pointer) and bare_media_type(media_type) in asked


def accept_field(cls: AcceptClass) -> str:
    """Return the Accept value with which upstream is asked for this class."""
    if cls == EVERYTHING:
        return ", ".join((*MANIFEST_TYPES, "*/*"))
    return ", ".join(sorted(cls))
