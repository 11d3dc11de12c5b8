"""What lies in deploy/ says only things that the code knows: names, paths, times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.config import ConfigError, load
from txociproxy.draining import ENDS_WITHIN_S
from txociproxy.process import files_needed
from txociproxy.service import LAST_S
from txociproxy.settings import SETTINGS

DEPLOY = Path(__file__).parent.parent / "deploy"
UNIT = DEPLOY / "systemd/txociproxy.service"
SCRIPT = DEPLOY / "openrc/txociproxy.initd"
DOCKERFILE = DEPLOY / "container/Dockerfile"
COMPOSE = DEPLOY / "compose/compose.yaml"
EXAMPLES = (DEPLOY / "systemd/env.example", DEPLOY / "compose/env.example")
KNOWN = {setting.variable for setting in SETTINGS}
# The AWS SDK reads these, systemd sets the one that the others follow, and compose.yaml asks for its own.
BESIDE = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "CACHE_DIRECTORY"}
COMPOSES_OWN = {"PORT", "S3_PORT", "SEAWEEDFS_IMAGE"}
GUIDE = DEPLOY.parent / "docs/operations.md"
# A variable that somebody could set: at the start of a line of settings, also one that is commented out.
ASSIGNED = re.compile(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", re.M)
MENTIONED = re.compile(r"\b((?:OCIPROXY|S3)_[A-Z0-9_]+|PROXY_MODE|FS_ROOT|LISTEN_ADDR|CACHE_[A-Z_]+)\b")


def read(file: Path) -> str:
    """Return the text of a file."""
    return file.read_text("utf-8")


def deployed() -> list[Path]:
    """Return the files that tell the cache something; dashboards and alerts have tests of their own."""
    folders = ("systemd", "openrc", "container", "compose", "nftables")
    return sorted(file for folder in folders for file in (DEPLOY / folder).iterdir() if file.is_file())


def unit_values(name: str) -> list[str]:
    """Return what the unit says about a name, each time."""
    return re.findall(rf"^{name}=(.*)$", read(UNIT), re.M)


def compose_service() -> dict[str, Any]:
    """Return our service of the composition."""
    service: dict[str, Any] = yaml.safe_load(read(COMPOSE))["services"]["txociproxy"]
    return service


def with_defaults(text: str) -> str:
    """Fill in what compose would, where nobody has set a variable; what must be set becomes a word."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}", lambda found: found[2] if found[2] is not None else "x", text)


class NameTests(SynchronousTestCase):
    """Variables and options that files in deploy/ name."""

    def test_every_variable_is_one_that_is_read(self) -> None:
        """A name that nobody knows stops the start, or worse, changes nothing."""
        unknown = {
            (str(file.relative_to(DEPLOY)), name)
            for file in deployed()
            for name in MENTIONED.findall(read(file))
            if name not in KNOWN | BESIDE | COMPOSES_OWN
        }
        self.assertEqual(unknown, set())

    def test_every_line_of_the_examples_can_be_taken(self) -> None:
        """Each variable of the two environment files is known, and each value of the service's is one."""
        for file in EXAMPLES:
            names = {name for name, _ in ASSIGNED.findall(read(file))}
            own = COMPOSES_OWN if file.parent.name == "compose" else set()
            self.assertEqual(names - KNOWN - BESIDE - own, set(), file)
            self.assertIn("PROXY_MODE", names)
        said = [pair for pair in ASSIGNED.findall(read(EXAMPLES[0])) if pair[0] in KNOWN]
        missing_files = 0
        for name, value in said:
            try:
                load({}, {"PROXY_MODE": "transparent", name: value})
            except ConfigError as error:
                # Its file is not here, or it needs the line below it; the words themselves are understood.
                self.assertRegex(str(error), "cannot be read|needs tls_|No such file", name)
                missing_files += 1
        self.assertGreater(len(said), missing_files)

    def test_the_composition_is_a_configuration(self) -> None:
        """With compose's defaults the environment of the service is understood whole."""
        environment = {name: with_defaults(str(value)) for name, value in compose_service()["environment"].items()}
        config = load({}, {**environment, "CACHE_DIRECTORY": "/var/cache/txociproxy"})
        self.assertEqual((config.mode, config.storage_backend, config.listen), ("transparent", "s3", (":8080",)))
        self.assertIsNone(config.redirect_above_bytes)

    def test_the_composition_asks_for_what_its_example_has(self) -> None:
        """Whatever can be set from outside stands in env.example, and nothing else does."""
        asked = set(re.findall(r"\$\{([A-Z0-9_]+)", read(COMPOSE))) - {"EDITOR"}
        has = {name for name, _ in ASSIGNED.findall(read(EXAMPLES[1]))}
        self.assertEqual(has, asked - {"LOG_LEVEL"})

    def test_the_commands_are_those_of_the_package(self) -> None:
        """``twistd -n ociproxy`` everywhere, and options that exist."""
        options = {setting.option for setting in SETTINGS}
        for text in (*unit_values("ExecStart"), read(SCRIPT), read(DOCKERFILE)):
            self.assertRegex(text.replace('", "', " "), r"twistd\"? -n --pidfile= ociproxy\b")
            after = text.partition(" ociproxy ")[2].split("\n")[0]
            self.assertEqual(set(re.findall(r"--([a-z-]+)", after)) - options, set())


class TimeTests(SynchronousTestCase):
    """Whoever stops the cache waits longer than it drains."""

    def setUp(self) -> None:
        """Know how long it may take to end."""
        self.least_s = load({}, {"PROXY_MODE": "transparent"}).drain_timeout_s + ENDS_WITHIN_S + LAST_S

    def test_systemd_waits(self) -> None:
        """SIGKILL comes after the drain."""
        self.assertGreaterEqual(float(unit_values("TimeoutStopSec")[0]), self.least_s)

    def test_openrc_waits(self) -> None:
        """The first number of the schedule is how long it has after SIGTERM."""
        found = re.search(r"retry:=TERM/(\d+)/KILL/\d+", read(SCRIPT))
        assert found is not None
        self.assertGreaterEqual(float(found[1]), self.least_s)
        self.assertIn(f'#retry="TERM/{found[1]}/', read(DEPLOY / "openrc/txociproxy.confd"))

    def test_compose_waits(self) -> None:
        """Docker's own ten seconds would cut pulls."""
        self.assertGreaterEqual(float(compose_service()["stop_grace_period"].removesuffix("s")), self.least_s)

    def test_the_guide_says_so_too(self) -> None:
        """Each command of it that stops a container, and what it says about the others."""
        said = re.findall(r"(?:docker stop -t|--stop-timeout|say) (\d+)", read(GUIDE))
        self.assertEqual(len(said), 3)
        self.assertEqual({float(time) >= self.least_s for time in said}, {True})
        self.assertIn(f"at the latest {ENDS_WITHIN_S + LAST_S:g} s after the drain timeout", read(GUIDE))

    def test_an_end_by_a_signal_is_no_failure_of_the_unit(self) -> None:
        """Statuses of ours mean a signal; one that nobody listens to yet may not stop the service for good."""
        self.assertEqual(unit_values("SuccessExitStatus"), ["130 143"])
        self.assertEqual(unit_values("RestartForceExitStatus"), ["SIGHUP"])


class AgreementTests(SynchronousTestCase):
    """What has to be the same in several files."""

    def test_directories_of_the_unit_are_those_of_the_script(self) -> None:
        """Cache, run and configuration lie at one place under both service managers."""
        for name, below in (("Cache", "/var/cache"), ("Runtime", "/run"), ("Configuration", "/etc")):
            self.assertEqual(unit_values(f"{name}Directory"), ["txociproxy"])
            self.assertIn(f"{below}/txociproxy", read(SCRIPT))
        self.assertIn(unit_values("EnvironmentFile")[0].lstrip("-"), read(SCRIPT))

    def test_the_unit_leaves_out_what_would_break_tls(self) -> None:
        """OpenSSL's callbacks need memory that is written and run: without it no upstream is reached."""
        self.assertEqual(unit_values("MemoryDenyWriteExecute"), [])

    def test_all_allow_as_many_files(self) -> None:
        """Unit, script and composition raise the limit alike."""
        self.assertEqual(unit_values("LimitNOFILE"), ["65536"])
        self.assertIn('rc_ulimit="-n 65536"', read(SCRIPT))
        self.assertEqual(compose_service()["ulimits"], {"nofile": 65536})

    def test_only_the_cache_gets_signals_and_only_its_user_reads_what_it_keeps(self) -> None:
        """SIGTERM ends the cache, whose helpers may be needed until then; SIGHUP reloads; nobody else is let in."""
        self.assertEqual((unit_values("KillMode"), unit_values("KillSignal")), (["mixed"], ["SIGTERM"]))
        self.assertIn("kill -HUP $MAINPID", unit_values("ExecReload")[0])
        self.assertIn('kill -HUP "$(cat "${pidfile}")"', read(SCRIPT))
        self.assertEqual((unit_values("UMask"), unit_values("CacheDirectoryMode")), (["0077"], ["0700"]))
        self.assertIn('umask="0077"', read(SCRIPT))
        self.assertIn("\nUSER 65532:65532\n", read(DOCKERFILE))

    def test_the_bucket_of_the_composition_is_for_this_machine_only(self) -> None:
        """Unless somebody says more; the cache reaches it by a network of their own."""
        bucket = yaml.safe_load(read(COMPOSE))["services"]["seaweedfs"]
        self.assertEqual([with_defaults(port) for port in bucket["ports"]], ["127.0.0.1:8333:8333"])

    def test_only_the_package_goes_into_an_image(self) -> None:
        """What lies around in a checkout is nobody's: caches, keys, an .env.  Its tests and history are not needed."""
        lines = [line for line in read(DEPLOY.parent / ".dockerignore").splitlines() if not line.startswith("#")]
        self.assertEqual(lines[0], "*")
        allowed = {line[1:] for line in lines if line.startswith("!")}
        self.assertEqual(allowed, {"pyproject.toml", "setup.py", "README.md", "txociproxy", "twisted"})

    def test_the_guide_knows_how_many_are_needed(self) -> None:
        """By default, in the mode that needs more; and the limit of all is above that."""
        needed = files_needed(load({}, {"PROXY_MODE": "transparent"}))
        self.assertIn(f"That is {needed} by default", read(GUIDE))
        self.assertLess(needed, 65536)

    def test_the_image_keeps_content_where_the_volume_is(self) -> None:
        """Volume, variable and the owner's directory are one; the composition mounts just that."""
        volume = re.findall(r"^VOLUME (\S+)$", read(DOCKERFILE), re.M)
        self.assertEqual(re.findall(r"CACHE_DIRECTORY=(\S+)", read(DOCKERFILE)), volume)
        self.assertEqual([mount.partition(":")[2] for mount in compose_service()["volumes"]], volume)
        self.assertIn(f"chown 65532:65532 {volume[0]} ", read(DOCKERFILE))
        config = load({}, {"PROXY_MODE": "transparent", "CACHE_DIRECTORY": volume[0]})
        self.assertEqual(config.fs_root, volume[0])

    def test_no_file_carries_a_secret(self) -> None:
        """What a person must choose is empty, and refused while it is."""
        self.assertIn("AWS_SECRET_ACCESS_KEY=\n", read(EXAMPLES[1]))
        self.assertIn("${AWS_SECRET_ACCESS_KEY:?", read(COMPOSE))
