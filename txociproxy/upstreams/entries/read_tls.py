"""The key ``tls`` of an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from txociproxy.upstreams.entries.entry import Tls
from txociproxy.upstreams.entries.read_keys import Reader, WrongValue, read_keys
from txociproxy.upstreams.entries.read_values import flag, path

_READERS: Mapping[str, Reader] = MappingProxyType(
    {"ca": path, "cert": path, "key": path, "verify": flag, "insecure_skip_verify": flag}
)
KEYS = tuple(_READERS)
_EXAMPLE = "{ca: /etc/ociproxy/ca.pem}"


def read_tls(value: object) -> Tls:
    """Read what is trusted, and who we are, toward an upstream.

    ``insecure_skip_verify: true`` is another spelling of ``verify: false``, for files of other programs.

    :raises WrongValue: something is wrong; no value is in the text, since it may be a key that was pasted.
    """
    if isinstance(value, bool):
        raise WrongValue(
            f"must be a mapping such as {_EXAMPLE}; whether TLS is spoken stands in `urls`: https:// or http://"
        )
    values = read_keys(value, _READERS, _EXAMPLE, is_secret=True)
    if "insecure_skip_verify" in values:
        if "verify" in values:
            raise WrongValue("says the same as `verify`; keep one of them", "insecure_skip_verify")
        values["verify"] = not values.pop("insecure_skip_verify")
    if "key" in values and "cert" not in values:
        raise WrongValue("needs `cert`, the certificate of this key", "key")
    return Tls(**values)
