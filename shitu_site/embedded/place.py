"""Where the servers of one `var` directory keep their things."""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from recognition.errors import SetupError

from . import keeper
from .account import Account

# The kernel allows 108 bytes (macOS 104), with an end mark, for `DIRECTORY/.s.PGSQL.5432`.
_SOCKET_DIRECTORY_MAX = (107 if sys.platform == "linux" else 103) - len("/.s.PGSQL.5432")
# Nothing here needs quoting in a URL, a shell or PostgreSQL's list of directories.
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+\Z")
# pg_ctl puts its paths between double quotes of a shell command.
_SHELL = re.compile(r'["$`\\\n]')


@dataclass(frozen=True)
class Place:
    """`var`, made absolute, and the account that owns the servers' data in it.

    - `postgres/data`, `valkey`: the data, owned by `account`, mode 0700;
    - `run/*.lock`: who uses the servers (see `ownership`);
    - `run/sockets`: the sockets, or a link to a directory elsewhere if this path is too long.
    """

    var: Path
    account: Account

    @classmethod
    def of(cls, var: Path) -> Place:
        """Make `var` and what every start needs in it. Raises SetupError."""
        var = var.absolute()
        with explained(var):
            var.mkdir(parents=True, exist_ok=True)
            var = var.resolve()
            if _SHELL.search(str(var)):
                raise SetupError(
                    f"The path {var} holds a quote, a dollar or a backslash, which PostgreSQL's "
                    "own starter cannot deal with. Move the project elsewhere."
                )
            place = cls(var, Account.for_data(var))
            place._directory("run", ours=True)
            for lock in (keeper.OWNERS_LOCK, keeper.KEEPER_LOCK, "run/start.lock"):
                place._lock_file(var / lock)
        return place

    def directory(self, name: str) -> Path:
        """`var/name`, private to the servers' account."""
        with explained(self.var):
            return self._directory(name)

    def sockets(self) -> Path:
        """The directory of the sockets, the same for everyone as long as it exists.

        Permission to open a socket is permission to enter this directory, so it is checked to be
        private before use, not only made so. Raises SetupError.
        """
        with explained(self.var):
            inside = self.var / keeper.SOCKETS
            if len(str(inside)) <= _SOCKET_DIRECTORY_MAX and _PLAIN.match(str(inside)):
                return self._directory(keeper.SOCKETS)
            if inside.is_symlink():
                known = inside.readlink()
                # Cleaners of temporary files may have taken it. Whoever is connected, or will be
                # again, knows this name, so it is made again rather than replaced.
                with suppress(FileExistsError):
                    known.mkdir(mode=0o700)
                    self.account.own(known)
                if self._private(known):
                    return known
                inside.unlink()
            elsewhere = self._short_directory()
            inside.symlink_to(elsewhere)
            return elsewhere

    def _short_directory(self) -> Path:
        for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 (mkdtemp makes it safe)
            directory = Path(tempfile.mkdtemp(prefix="shitu-", dir=parent))
            if len(str(directory)) <= _SOCKET_DIRECTORY_MAX and _PLAIN.match(str(directory)):
                self.account.own(directory)
                return directory
            directory.rmdir()
        raise SetupError(
            f"The sockets of the embedded servers fit neither into {self.var} nor into the "
            "directory for temporary files: the paths are too long. Set TMPDIR to a short one."
        )

    def _private(self, directory: Path) -> bool:
        found = directory.lstat()
        return (
            stat.S_ISDIR(found.st_mode)
            and stat.S_IMODE(found.st_mode) == 0o700
            and found.st_uid == self.account.uid
        )

    def _directory(self, name: str, *, ours: bool = False) -> Path:
        directory = self.var / name
        # The way to the sockets leads through ours, so there others may pass, but not look.
        directory.mkdir(mode=0o711 if ours else 0o700, exist_ok=True)
        if ours:
            self._like_var(directory)
            return directory
        self.account.own(directory)
        if not self._private(directory):
            raise SetupError(
                f"{directory} must be a directory of mode 0700 that belongs to the user id "
                f"{self.account.uid}, as it is private to the embedded servers. Correct its owner "
                "and mode, or work as the user who made it."
            )
        return directory

    def _lock_file(self, path: Path) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        self._like_var(path)

    def _like_var(self, path: Path) -> None:
        if self.account.switch:  # root leaves nothing that the owner of `var` cannot open
            owner = self.var.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def explained(var: Path) -> Iterator[None]:
    """Turn what the file system refuses into a SetupError that names the remedy."""
    try:
        yield
    except OSError as error:
        raise SetupError(why(error, var)) from error


def why(error: OSError, var: Path) -> str:
    """One sentence or two for an error met under `var`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk that holds {var} is full. Free some space on it and start again."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{error.filename or var} cannot be used by the account of this process (user id "
            f"{os.geteuid()}): {error.strerror}. Work as the owner of the project's directory, or "
            "give this account the right to write there."
        )
    return f"The embedded servers cannot use {error.filename or var}: {error.strerror or error}."
