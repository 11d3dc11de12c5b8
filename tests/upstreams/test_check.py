"""What of an entry is tried on this machine, when the configuration is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.upstreams.certificates import self_signed
from txociproxy.upstreams.entries.check import check_entry
from txociproxy.upstreams.entries.reading import EntryError, entry_from_mapping


class CheckTests(SynchronousTestCase):
    """Files are there, programs are found."""

    def setUp(self) -> None:
        """Have a directory."""
        self.place = Path(self.mktemp())
        self.place.mkdir()

    def file(self, name: str, content: bytes, mode: int = 0o600) -> str:
        """Write a file and return its path."""
        path = self.place / name
        path.write_bytes(content)
        path.chmod(mode)
        return str(path.absolute())

    def has_sdk(self) -> None:
        """Say that the AWS SDK is installed."""

    def check(self, namespace: str = "r.example", **keys: object) -> None:
        """Check an upstream with these keys."""
        environ = {"PATH": str(self.place.absolute()), "HOME": "/"}
        check_entry(entry_from_mapping({"namespace": namespace, **keys}, environ), self.has_sdk)

    def refusal(self, key: str, namespace: str = "r.example", **keys: object) -> str:
        """Return what is said after the key."""
        error = self.assertRaises(EntryError, self.check, namespace, **keys)
        start = f"upstreams[{namespace}].{key}: "
        self.assertTrue(str(error).startswith(start), str(error))
        self.assertEqual(".".join(map(str, error.at)), key)
        return str(error).removeprefix(start)

    def test_a_password_file_is_read(self) -> None:
        """It must be there and hold something; its path may be the password itself, so that it is not shown."""
        self.check(credentials={"username": "u", "password_file": self.file("p", b"hunter2\n")})
        for path, why in ((str(self.place / "hunter2"), "No such file"), (self.file("hunter2b", b"\n"), "is empty")):
            error = self.refusal("credentials.password_file", credentials={"username": "u", "password_file": path})
            self.assertIn(why, error)
            self.assertNotIn("hunter2", error)

    def test_a_docker_config_is_json(self) -> None:
        """Whether it has a login for this registry is seen at the first pull, since people log in and out."""
        self.check(credentials={"docker_config": self.file("c", b'{"auths": {}}')})
        for content, why in ((b"{hunter2", "is not JSON"), (b'"hunter2"', "is not a JSON object")):
            path = self.file("hunter2", content)
            error = self.refusal("credentials.docker_config", credentials={"docker_config": path})
            self.assertIn(why, error)
            self.assertNotIn("hunter2", error)
        missing = str(self.place / "no" / "hunter2")
        error = self.refusal("credentials.docker_config", credentials={"docker_config": missing})
        self.assertIn("No such file", error)
        self.assertNotIn("hunter2", error)

    def test_a_helper_is_a_program_in_path(self) -> None:
        """One that cannot be run is none."""
        self.file("docker-credential-good", b"#!/bin/sh\n", 0o700)
        self.file("docker-credential-bad", b"#!/bin/sh\n", 0o600)
        self.check(credentials={"helper": "good"})
        for name in ("bad", "missing"):
            self.assertIn("not in PATH; install it", self.refusal("credentials.helper", credentials={"helper": name}))

    def test_the_region_of_ecr_is_known(self) -> None:
        """From the host, or said."""
        self.check("123456789012.dkr.ecr.eu-central-1.amazonaws.com", credentials={"ecr": True})
        self.check(credentials={"ecr": {"region": "eu-central-1"}})
        self.assertIn("write {region: ", self.refusal("credentials.ecr", credentials={"ecr": True}))

    def test_ecr_needs_the_sdk(self) -> None:
        """The error says how to get it."""

        def missing() -> None:
            raise ValueError("pip install")

        entry = entry_from_mapping({"namespace": "r.example", "credentials": {"ecr": {"region": "x"}}})
        error = self.assertRaises(EntryError, check_entry, entry, missing)
        self.assertEqual(str(error), "upstreams[r.example].credentials.ecr: pip install")

    def test_certificates_and_keys_are_read(self) -> None:
        """Each at its own key."""
        own = self_signed("r.example")
        certificate, key = own.cert_pem, own.key_pem
        cert_path, key_path = self.file("cert", certificate), self.file("key", key)
        other, none = self.file("other", self_signed("r.example").key_pem), self.file("none", b"hunter2")
        self.check(tls={"ca": cert_path, "cert": cert_path, "key": key_path})
        self.check(tls={"cert": self.file("both", certificate + key)})
        missing = os.path.abspath(self.place / "missing")
        self.assertEqual(
            self.refusal("tls.ca", tls={"ca": missing}),
            f"{missing}: No such file or directory; name the right file in PEM",
        )
        for wrong, tls in (
            ("ca", {"ca": none}),
            ("cert", {"cert": none, "key": key_path}),
            ("key", {"cert": cert_path, "key": none}),
            ("key", {"cert": cert_path, "key": other}),
            ("key", {"cert": cert_path}),
        ):
            self.assertNotIn("hunter2", self.refusal(f"tls.{wrong}", tls=tls))
