"""The words after ``ociproxy``, and the help about them."""

from __future__ import annotations

import argparse
import platform
from typing import Any, Final

from txociproxy import __version__

# Only names are known here: nothing of what the commands need is imported for --help.
CLIENTS: Final = ("containerd", "docker", "podman", "crio", "k3s", "buildkit")

_TOP = (
    "Tools for txociproxy, a pull-through cache for OCI container registries. The proxy itself is started by twistd:"
    "\n\n  twistd -n ociproxy --mode transparent"
)
_CHECK = """\
Read a configuration file as the proxy would at its start or at SIGHUP, and say what is wrong in one line:
FILE:LINE: KEY: what, and what to write instead. Nothing is connected and nothing is changed; files that it names
(passwords, certificates, a Docker config.json), helper programs and the AWS SDK must be there. The environment counts
as it does at the start: run it as the user of the service and with its environment."""
_CHECK_EXAMPLES = """\
examples:
  ociproxy config check /etc/ociproxy.yaml
  ociproxy config check --mode authenticated /etc/ociproxy.yaml && systemctl reload ociproxy

exit status: 0 the file is right, 1 something is wrong, 2 the command itself was not understood."""
_HEALTH = """\
Ask a running proxy on this machine whether it lives (/healthz), or whether it would serve pulls (/readyz), where no
curl is at hand. It is found at the address that the same environment, file and options tell the proxy: at admin_listen
first, then at each listen; the first that answers counts. A certificate is not checked. Where only clients with a
certificate are let in, an answer of TLS itself says that the proxy lives."""
_HEALTH_EXAMPLES = """\
examples:
  ociproxy healthcheck
  ociproxy healthcheck --ready --config /etc/ociproxy.yaml
  ociproxy healthcheck --url unix:/run/ociproxy/admin.sock
  HEALTHCHECK --interval=10s --timeout=5s CMD ["ociproxy", "healthcheck"]      (in a Dockerfile)

exit status: 0 it does, 1 it does not, 2 the command itself was not understood. One line says what was found."""
_CLIENT = """\
Print the files that let a client pull through the cache, each below a line '# --- PATH', with the traps that others
have met as comments. Nothing is written and nothing is connected; merge what is printed into files that are there."""
_CLIENT_EXAMPLES = """\
examples:
  ociproxy client-config containerd --url http://cache.internal:8080
  ociproxy client-config podman --url https://cache.internal --ca /etc/ssl/cache-ca.pem --registry docker.io
  ociproxy client-config docker --url https://host.docker.internal:8443 --insecure

exit status: 0 printed, 1 something cannot be so, 2 the command itself was not understood."""
_SMOKE = """\
Pull images twice through a running cache and tell what came of it: is its name known, is it a registry, is the manifest
there, how long did the first pull take and how long the second. One logfmt line per event goes to standard output, with
no keys but ts host result event target endpoint code image ms1 ms2 speedup_pct; why something failed is said on
standard error. Everything that arrives is checked against its digest and thrown away."""
_SMOKE_EXAMPLES = """\
examples:
  ociproxy smoke --url http://127.0.0.1:8080 --image docker.io/library/alpine:latest
  ociproxy smoke --url https://cache.internal --ca ca.pem --image ghcr.io/org/app:1.0 --image quay.io/org/tool:2
  SMOKE_PASSWORD=... ociproxy smoke --url https://cache.internal --user ci --image ghcr.io/org/private:1

exit status: 0 all events passed, 1 one did not, 2 the command itself was not understood."""


class _Version(argparse.Action):
    """Print versions; Twisted's is looked up only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from twisted import __version__ as twisted_version

        print(f"txociproxy {__version__}\nPython {platform.python_version()}, Twisted {twisted_version}")  # noqa: T201
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return what understands the words after ``ociproxy``."""
    top = _Parser("ociproxy", description=_TOP, epilog="'ociproxy COMMAND --help' explains a command.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the versions of this, Python and Twisted")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    config = commands.add_parser(
        "config", help="check a configuration file", description="Work with the configuration."
    )
    _check_words(config.add_subparsers(title="commands", metavar="COMMAND", required=True))
    _health_words(commands)
    _client_words(commands)
    _smoke_words(commands)
    return top


class _Parser(argparse.ArgumentParser):
    """A parser that leaves the lines of its texts as they are."""

    def __init__(self, prog: str | None = None, **more: Any) -> None:
        more["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, **more)


def _check_words(commands: Any) -> None:
    words = commands.add_parser(
        "check", help="say whether a file can be used, without a network", description=_CHECK, epilog=_CHECK_EXAMPLES
    )
    words.set_defaults(command="check")
    words.add_argument("file", metavar="FILE", help="the YAML file of --config")
    words.add_argument(
        "--mode",
        choices=("transparent", "authenticated"),
        help="as --mode of the proxy; needed only for what depends on it, if neither FILE nor PROXY_MODE says it",
    )


def _health_words(commands: Any) -> None:
    words = commands.add_parser(
        "healthcheck", help="ask a running proxy whether it lives", description=_HEALTH, epilog=_HEALTH_EXAMPLES
    )
    words.set_defaults(command="healthcheck")
    words.add_argument("--ready", action="store_true", help="ask whether pulls would be served (/readyz)")
    words.add_argument("--config", metavar="FILE", help="as --config of the proxy")
    words.add_argument("--listen", metavar="PLACE", action="append", default=[], help="as --listen of the proxy")
    words.add_argument("--admin-listen", metavar="PLACE", help="as --admin-listen of the proxy")
    words.add_argument("--url", metavar="URL", help="ask there: http://HOST:PORT, https://HOST:PORT or unix:/PATH")
    _add_timeout(words, 3, "how long to wait in all")


def _client_words(commands: Any) -> None:
    words = commands.add_parser(
        "client-config",
        help="print what clients need to pull through the cache",
        description=_CLIENT,
        epilog=_CLIENT_EXAMPLES,
    )
    words.set_defaults(command="client-config")
    words.add_argument("client", metavar="CLIENT", choices=CLIENTS, help=", ".join(CLIENTS))
    words.add_argument("--url", required=True, help="where clients reach the cache: http(s)://HOST[:PORT]")
    words.add_argument(
        "--registry",
        metavar="NAME",
        action="append",
        default=[],
        help="a registry to pull through the cache; repeatable; default: all that the proxy knows by itself",
    )
    words.add_argument("--ca", metavar="FILE", help="the authority of the cache's certificate, on the client")
    words.add_argument("--client-cert", metavar="FILE", help="the client's own certificate, on the client")
    words.add_argument("--client-key", metavar="FILE", help="the key of --client-cert")
    words.add_argument("--insecure", action="store_true", help="do not check the cache's certificate")


def _smoke_words(commands: Any) -> None:
    words = commands.add_parser(
        "smoke", help="pull twice through a running cache", description=_SMOKE, epilog=_SMOKE_EXAMPLES
    )
    words.set_defaults(command="smoke")
    words.add_argument("--url", required=True, help="the cache: http(s)://HOST[:PORT]")
    words.add_argument("--image", metavar="NAME", action="append", required=True, help="what to pull; repeatable")
    words.add_argument("--platform", default="linux/amd64", help="OS/ARCHITECTURE[/VARIANT], or all (%(default)s)")
    words.add_argument("--target", metavar="NAME", help="the name of the cache in the lines; default: the URL's host")
    words.add_argument(
        "--user", metavar="NAME", help="log in; the password is that of --password-file or $SMOKE_PASSWORD"
    )
    words.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    words.add_argument("--ca", metavar="FILE", help="the authority of the cache's certificate (PEM)")
    words.add_argument("--insecure", action="store_true", help="do not check the cache's certificate")
    _add_timeout(words, 60, "how long one event may take: a pull must be over by then")


def _add_timeout(words: argparse.ArgumentParser, default_s: int, meaning: str) -> None:
    words.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=default_s, help=f"{meaning} (%(default)s)"
    )


def _seconds(text: str) -> float:
    """Read a time to wait; argparse turns the error into its own."""
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise ValueError
    return seconds
