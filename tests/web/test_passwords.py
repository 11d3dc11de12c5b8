"""A file of users and their passwords."""

from __future__ import annotations

import os
import string
import time
from pathlib import Path

import bcrypt
from twisted.trial.unittest import SynchronousTestCase

from txociproxy.web.passwords import MAX_FILE_BYTES, UserFile, Users, read_users

HASHED = bcrypt.hashpw(b"secret", bcrypt.gensalt(4))


def entry(name: bytes, password: bytes) -> bytes:
    """Return a line as ``htpasswd -B`` writes it."""
    return name + b":" + bcrypt.hashpw(password, bcrypt.gensalt(4)).replace(b"$2b$", b"$2y$") + b"\n"


class UsersTests(SynchronousTestCase):
    """What a file says."""

    def test_a_user_is_known_by_his_password_only(self) -> None:
        """Neither another password, nor another's, nor none."""
        users = Users.parse(entry(b"ann", b"secret") + entry(b"bob", b"other"))
        self.assertTrue(users.knows(b"ann", b"secret"))
        for name, password in (
            (b"ann", b"other"),
            (b"bob", b"secret"),
            (b"", b"secret"),
            (b"ann", b""),
            (b"eve", b"x"),
        ):
            self.assertFalse(users.knows(name, password), (name, password))

    def test_a_hash_that_bcrypt_cannot_read_is_no_hash(self) -> None:
        """It would be an error at each check of a name that nobody has; four salts of 22 characters end each byte."""
        for char in string.ascii_letters + string.digits + "./":
            line = b"ann:$2y$04$" + b"a" * 21 + char.encode() + b"b" * 31
            try:
                users = Users.parse(line)
            except ValueError:
                continue
            self.assertFalse(users.knows(b"eve", b"x"), char)
            self.assertIn(char, ".Oeu")

    def test_a_name_that_nobody_has_is_no_name_with_the_first_password(self) -> None:
        """It is compared with somebody's hash only to take as long."""
        self.assertFalse(Users.parse(entry(b"ann", b"secret")).knows(b"eve", b"secret"))

    def test_a_name_that_nobody_has_takes_as_long(self) -> None:
        """Else the time would tell which names there are."""
        users = Users.parse(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(8)))

        def seconds(name: bytes) -> float:
            began_s = time.thread_time()
            self.assertFalse(users.knows(name, b"wrong"))
            return time.thread_time() - began_s

        seconds(b"ann")  # the first loads the library
        self.assertGreater(seconds(b"eve"), seconds(b"ann") / 4)

    def test_a_long_password_counts_as_far_as_the_algorithm_goes(self) -> None:
        """72 bytes, as htpasswd cuts it, rather than an error."""
        users = Users.parse(entry(b"ann", b"p" * 72))
        self.assertTrue(users.knows(b"ann", b"p" * 100))
        self.assertFalse(users.knows(b"ann", b"p" * 71))

    def test_empty_lines_comments_and_second_entries_do_not_count(self) -> None:
        """As other programs read these files; the line end of other systems does not matter."""
        text = b"# users\r\n\n" + entry(b"ann", b"one").replace(b"\n", b"\r\n") + entry(b"ann", b"two")
        users = Users.parse(text)
        self.assertEqual(set(users.hashes), {b"ann"})
        self.assertTrue(users.knows(b"ann", b"one"))

    def test_every_other_line_is_named_without_its_text(self) -> None:
        """MD5 and SHA-1, which the same program writes, plain text, half a hash, a hash of more than hours."""
        good = HASHED.decode()
        for line in (
            "ann:$apr1$x$y",
            "ann:{SHA}abc=",
            "ann:sesame",
            "ann",
            f":{good}",
            f"ann:{good}x",
            f"ann:{good[:-1]}",
        ):
            error = str(self.assertRaises(ValueError, Users.parse, entry(b"bob", b"x") + line.encode()))
            self.assertIn("line 2", error)
            self.assertIn("htpasswd -B", error)
            self.assertNotIn("sesame", error)
        for cost in ("03", "18", "31"):
            text = f"ann:$2y${cost}{good[6:]}".encode()
            self.assertIn("cost", str(self.assertRaises(ValueError, Users.parse, text)))

    def test_a_file_of_nobody_is_an_error(self) -> None:
        """Nobody could log in."""
        self.assertIn("no user", str(self.assertRaises(ValueError, Users.parse, b"# nobody\n")))

    def test_hashes_are_not_printed(self) -> None:
        """They can be guessed at leisure."""
        self.assertNotIn("$2y$", repr(Users.parse(entry(b"ann", b"secret"))))


class FileTests(SynchronousTestCase):
    """A file that changes."""

    def setUp(self) -> None:
        """One user."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(entry(b"ann", b"one"))
        self.file = UserFile(str(self.path))

    def knows(self, name: bytes, password: bytes) -> bool:
        """Say whether somebody is let in now."""
        users, _ = self.file.look()
        return users is not None and users.knows(name, password)

    def replace(self, data: bytes) -> None:
        """Put another file in its place."""
        other = self.path.with_suffix(".new")
        other.write_bytes(data)
        os.replace(other, self.path)

    def test_it_is_read_again_when_it_has_changed(self) -> None:
        """Also by another file of the same size."""
        self.assertTrue(self.knows(b"ann", b"one"))
        self.replace(entry(b"ann", b"two"))
        self.assertTrue(self.knows(b"ann", b"two"))
        self.assertFalse(self.knows(b"ann", b"one"))

    def test_it_is_not_read_again_without_a_change(self) -> None:
        """The users are the same object."""
        self.assertIs(self.file.look()[0], self.file.look()[0])

    def test_a_broken_or_missing_file_leaves_those_of_before_and_is_told_once(self) -> None:
        """Whoever edits it has no reason to fear a moment."""
        self.file.look()
        self.replace(b"ann:plain\n")
        users, trouble = self.file.look()
        self.assertIn("line 1", trouble or "")
        self.assertIsNone(self.file.look()[1])
        self.path.unlink()
        gone, trouble = self.file.look()
        self.assertIn("No such file", trouble or "")
        self.assertIsNone(self.file.look()[1])
        self.assertIs(gone, users)
        self.replace(entry(b"bob", b"x"))
        self.assertEqual(self.file.look()[1], None)
        self.assertTrue(self.knows(b"bob", b"x"))

    def test_where_there_never_was_one_nobody_is_known(self) -> None:
        """A start would have said so, but files go."""
        self.assertEqual(UserFile("/nowhere/at/all").look()[0], None)

    def test_what_is_no_small_file_is_not_read(self) -> None:
        """A pipe would wait for ever."""
        self.path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        self.assertIn("more than", str(self.assertRaises(ValueError, read_users, str(self.path))))
        pipe = self.mktemp()
        os.mkfifo(pipe)
        self.assertIn("regular", str(self.assertRaises(ValueError, read_users, pipe)))
