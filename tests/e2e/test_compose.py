"""The composition against the Compose Specification, and the firewall's rules against nftables."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.e2e.debian import want_root
from tests.e2e.processes import ROOT, CommandFailed, E2EError, Workshop, run

COMPOSE = ROOT / "deploy/compose"
RULES = ROOT / "deploy/nftables/txociproxy.nft"
# The library of the specification's authors, with which `docker compose` is made; the schema is in it.
LIBRARY = "github.com/compose-spec/compose-go/v2"
VERSION = "v2.16.2"
# Reads a file as compose does, variables of the environment included, and prints what it understood.
PROGRAM = """package main

import (
	"context"
	"encoding/json"
	"log"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithOsEnv, cli.WithResolvedPaths(true))
	if err != nil {
		log.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(project); err != nil {
		log.Fatal(err)
	}
}
"""
GO_S = 180
NO_FLAGS = {"GOFLAGS": ""}
KEYS = {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}
# A firewall as distributions ship it, with our two lines.
FIREWALL = """
include "{rules}"
table inet filter {{
    chain input {{
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        jump txociproxy
        counter drop
    }}
}}
"""


@cache
def validator() -> Path:
    """Return the validator, built by Go once into where `.ci/run` keeps its tools.

    :raises SkipTest: there is no Go here, or its modules cannot be had.
    """
    go = shutil.which("go")
    if go is None:
        raise SkipTest("no Go toolchain here, with which the validator of compose files is built")
    directory = ROOT / ".tools" / f"compose-{VERSION}"
    directory.mkdir(parents=True, exist_ok=True)
    binary, source = directory / "validate", directory / "main.go"
    if binary.exists() and source.read_text() == PROGRAM:
        return binary
    source.write_text(PROGRAM)
    try:
        if not (directory / "go.mod").exists():
            run([go, "mod", "init", "validate"], GO_S, NO_FLAGS, directory)
        run([go, "get", f"{LIBRARY}/cli@{VERSION}"], GO_S, NO_FLAGS, directory)
        run([go, "build", "-o", binary, "."], GO_S, NO_FLAGS, directory)
    except E2EError as error:
        raise SkipTest(f"the validator of compose files could not be built: {error}") from None
    return binary


class ComposeTests(SynchronousTestCase):
    """deploy/compose/compose.yaml."""

    def setUp(self) -> None:
        """Copy it to where it can be changed; paths in it count from there."""
        self.validator = validator()
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.file = self.shop.path / "deploy/compose/compose.yaml"
        shutil.copytree(COMPOSE, self.file.parent)

    def validated(self, env: dict[str, str]) -> dict[str, Any]:
        """Return the project that compose would make of the file."""
        said = run([self.validator, self.file.name], 60, env, cwd=self.file.parent)
        project: dict[str, Any] = json.loads(said)
        return project

    def test_it_conforms_to_the_specification(self) -> None:
        """Schema, references between services, configs and volumes, and interpolation are right."""
        services = self.validated(KEYS)["services"]
        self.assertEqual(set(services), {"txociproxy", "seaweedfs"})
        ours = services["txociproxy"]
        self.assertEqual(Path(ours["build"]["context"]), self.shop.path)
        self.assertEqual(ours["environment"]["AWS_SECRET_ACCESS_KEY"], "secret")
        self.assertEqual(ours["depends_on"]["seaweedfs"]["condition"], "service_healthy")

    def test_the_build_finds_its_dockerfile(self) -> None:
        """The context is the checkout, seen from where the file lies."""
        build = self.validated(KEYS)["services"]["txociproxy"]["build"]
        self.assertTrue((ROOT / build["dockerfile"]).is_file())

    def test_the_bucket_knows_the_key_that_the_cache_signs_with(self) -> None:
        """What compose writes for SeaweedFS is JSON, with the key of .env in it."""
        identities = json.loads(self.validated(KEYS)["configs"]["s3"]["content"])["identities"]
        self.assertEqual(identities[0]["credentials"], [{"accessKey": "access", "secretKey": "secret"}])

    def test_nothing_starts_without_a_key(self) -> None:
        """An open bucket is nobody's wish."""
        with self.assertRaises(CommandFailed) as caught:
            self.validated({"AWS_ACCESS_KEY_ID": "access"})
        self.assertIn("AWS_SECRET_ACCESS_KEY", str(caught.exception))

    def test_the_validator_would_find_what_is_wrong(self) -> None:
        """A key that the specification does not have is refused."""
        self.file.write_text(self.file.read_text().replace("read_only: true", "readonly: true"))
        with self.assertRaises(CommandFailed) as caught:
            self.validated(KEYS)
        self.assertIn("readonly", str(caught.exception))


class FirewallTests(SynchronousTestCase):
    """deploy/nftables/txociproxy.nft in a firewall that drops what it does not know."""

    def setUp(self) -> None:
        """Write the firewall's own file."""
        want_root("nft", "unshare")
        self.shop = Workshop()
        self.addCleanup(self.shop.close)
        self.main = self.shop.path / "nftables.conf"
        self.main.write_text(FIREWALL.format(rules=RULES))

    def nft(self, *words: object) -> str:
        """Run nft in a network of its own, that ends with it."""
        try:
            return run(["unshare", "--net", "sh", "-c", " && ".join(f"nft {word}" for word in words)], 30)
        except CommandFailed as error:
            if "Operation not permitted" in str(error):
                raise SkipTest(f"the kernel does not let us have a firewall here: {error}") from None
            raise

    def test_the_rules_are_rules(self) -> None:
        """The check that the file itself recommends."""
        self.nft(f"-c -f {self.main}")

    def test_they_stand_in_the_way_of_the_drop(self) -> None:
        """Loaded for real, the port is open to local networks only, by a chain that the input chain comes to first."""
        listing = self.nft(f"-f {self.main}", "-j list ruleset")
        rules = [entry["rule"] for entry in json.loads(listing)["nftables"] if "rule" in entry]
        ours = [json.dumps(rule["expr"]) for rule in rules if rule["chain"] == "txociproxy"]
        self.assertEqual(
            [("8080" in rule, "accept" in rule, "saddr" in rule) for rule in ours], [(True, True, True)] * 2
        )
        jumps = [index for index, rule in enumerate(rules) if "jump" in json.dumps(rule["expr"])]
        drops = [index for index, rule in enumerate(rules) if "drop" in json.dumps(rule["expr"])]
        self.assertLess(jumps[0], drops[0])
