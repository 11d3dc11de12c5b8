"""The layers of docs/ARCHITECTURE.md, kept by walking the imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import txociproxy

PACKAGE = Path(txociproxy.__file__).parent
LAYERS = (
    {"oci"},
    {"interfaces", "logs", "metrics"},
    {"answers", "bodies", "collect", "remembering", "workers"},
    {"envelopes", "ingest", "storage", "upstreams"},
    {
        *("admissions", "ages", "asking", "assembly", "blobs", "brought", "cache", "caps", "carrying", "elsewhere"),
        *("exchanges", "flights", "forgetting", "ingests", "listings", "manifests", "meanings", "measured", "modes"),
        *("parts", "pings", "places", "proving", "serving", "slots", "tagged", "tags", "turns"),
    },
    {"web"},
    {
        *("bucket_values", "buckets", "building", "cli", "config", "doorways", "draining", "introduction", "measuring"),
        *("namespaces", "options", "process", "quantities", "readiness", "reload", "service", "settings", "sources"),
        *("ways", "wiring", "yamlfile"),
    },
)
MECHANISMS = 3
LAYER_OF = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Iterate over the package's files with their syntax."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(PACKAGE)), ast.parse(path.read_text("utf-8"))


def imports(tree: ast.Module) -> Iterator[str]:
    """Iterate over the full names that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name: str) -> str:
    """Return the room of a file or of an imported name of ours."""
    return name.replace("/", ".").removeprefix("txociproxy.").split(".")[0]


class LayerTests(SynchronousTestCase):
    """Who may know whom."""

    def offenders(self, is_wrong: object) -> list[str]:
        """Return the imports that are wrong, as ``file: name``."""
        assert callable(is_wrong)
        return [f"{file}: {name}" for file, tree in modules() for name in imports(tree) if is_wrong(file, name)]

    def test_every_room_has_a_layer(self) -> None:
        """A new room is given its place here."""
        self.assertEqual({room_of(file) for file, _ in modules()} - {"__init__"} - set(LAYER_OF), set())

    def test_imports_point_down(self) -> None:
        """A room knows what lies below; the mechanisms do not know each other."""

        def is_wrong(file: str, name: str) -> bool:
            here, there = room_of(file), room_of(name)
            if not name.startswith("txociproxy.") or there == here or there == "__version__":
                return False
            below = LAYER_OF[here] - LAYER_OF[there]
            return below < 0 or (below == 0 and LAYER_OF[here] == MECHANISMS)

        self.assertEqual(self.offenders(is_wrong), [])

    def test_the_language_is_pure(self) -> None:
        """oci/ knows the standard library and attrs, no I/O and no Twisted."""
        pure = sys.stdlib_module_names - {"socket", "asyncio", "subprocess", "time", "threading", "os", "pathlib"}

        def is_wrong(file: str, name: str) -> bool:
            return room_of(file) == "oci" and name.split(".")[0] not in pure | {"attrs", "__future__", "txociproxy"}

        self.assertEqual(self.offenders(is_wrong), [])

    def test_one_room_names_the_reactor_and_one_a_storage(self) -> None:
        """Everything else is given its clock, its reactor and its storage."""

        def is_wrong(file: str, name: str) -> bool:
            value = name.startswith(("txociproxy.storage.s3.settings", "txociproxy.storage.s3.trouble"))
            storage = name.startswith("txociproxy.storage") and room_of(file) != "storage" and not value
            reactor = name.startswith("twisted.internet.reactor")
            return (storage and file != "building.py") or (reactor and file != "service.py")

        self.assertEqual(self.offenders(is_wrong), [])

    def test_servers_and_resources_live_in_web(self) -> None:
        """Policy and mechanism do not know that they are asked over HTTP."""

        def is_wrong(file: str, name: str) -> bool:
            return name.startswith(("twisted.web.server", "twisted.web.resource")) and room_of(file) != "web"

        self.assertEqual(self.offenders(is_wrong), [])

    def test_the_aws_sdk_is_imported_in_two_rooms_and_only_when_it_is_used(self) -> None:
        """It is an extra, half a second and 15 MB: a login for ECR and a bucket import it within a function."""
        rooms = ("upstreams/logins/ecr.py", "storage/s3/connecting.py")

        def is_aws(name: str) -> bool:
            return name.split(".")[0] in ("boto3", "botocore")

        self.assertEqual(self.offenders(lambda file, name: is_aws(name) and file not in rooms), [])
        for room in rooms:
            tree = dict(modules())[room]
            at_once = ast.Module([node for node in tree.body if not isinstance(node, ast.FunctionDef)], [])
            self.assertEqual([name for name in imports(at_once) if is_aws(name)], [])
            self.assertTrue(any(is_aws(name) for name in imports(tree)))

    def test_only_config_reads_the_environment(self) -> None:
        """What the process was told is in Config; a command that needs none of it begins without importing that."""
        found = [
            file
            for file, tree in modules()
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
            if isinstance(node.value, ast.Name) and node.value.id == "os"
        ]
        self.assertEqual(set(found), {"config.py", "cli/main.py"})
