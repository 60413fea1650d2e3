"""The account the servers run as: our own, or an unprivileged one when we are root.

PostgreSQL refuses to run as root. The usual cure, opening every directory above the data to the
world, is none: it changes the modes of directories that are not ours, such as a root's home. So a
server whose directories the unprivileged account cannot reach is given one capability instead, to
walk through (and read) what it could not, and no permission is changed anywhere.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recognition.errors import SetupError

# Numbers from linux/capability.h. The first only reads; containers often grant just the second.
_WALK_THROUGH = {"dac_read_search": 2, "dac_override": 1}


@dataclass(frozen=True)
class Account:
    """Who runs the servers. `switch` is False when that is the account we have already."""

    uid: int
    gid: int
    switch: bool = False

    @classmethod
    def for_data(cls, var: Path) -> Account:
        """The account for servers with their data under `var` (which exists).

        As root: whoever owns the data already, else whoever owns `var` (so that a project of
        Ann's which root started once is still Ann's), else `nobody`, which has a name everywhere
        (initdb insists on one). Raises SetupError when root cannot change to it.
        """
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid())
        for directory in (var / "postgres", var / "valkey", var):
            if directory.exists() and (owner := directory.stat()).st_uid != 0:
                return cls(owner.st_uid, owner.st_gid, switch=True)
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise SetupError(
                "PostgreSQL does not run as root, and this machine has no account 'nobody' to run "
                "it as. Start the project as an ordinary user, or set DATABASE_URL and REDIS_URL."
            ) from None
        return cls(nobody.pw_uid, nobody.pw_gid, switch=True)

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def command(self, *argv: str | Path, reaching: Sequence[Path]) -> list[str]:
        """`argv` to be run as this account, able to reach every directory of `reaching`."""
        words = [str(word) for word in argv]
        if not self.switch:
            return words
        setpriv = shutil.which("setpriv")
        if sys.platform != "linux" or setpriv is None:
            raise SetupError(
                "PostgreSQL does not run as root, and the program 'setpriv' (package util-linux), "
                "which starts it as another account, is missing. Install it, or start the project "
                "as an ordinary user."
            )
        switch = [setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]
        if all(self._reaches(path) for path in reaching):
            return [*switch, "--inh-caps=-all", *words]
        capability = _walk_through()
        return [
            *switch,
            f"--inh-caps=-all,+{capability}",
            f"--ambient-caps=-all,+{capability}",
            # access(2), with which PostgreSQL looks for its own programs, would ignore the
            # capability otherwise. What root held besides is still lost at exec.
            "--securebits=+no_setuid_fixup",
            *words,
        ]

    def _reaches(self, path: Path) -> bool:
        """Whether plain permissions let this account walk to `path`."""
        return all(self._may_enter(step.stat()) for step in (path, *path.parents))

    def _may_enter(self, directory: os.stat_result) -> bool:
        if directory.st_uid == self.uid:
            return bool(directory.st_mode & stat.S_IXUSR)
        if directory.st_gid == self.gid:
            return bool(directory.st_mode & stat.S_IXGRP)
        return bool(directory.st_mode & stat.S_IXOTH)


def _walk_through() -> str:
    """The least capability we hold that lets a process walk through closed directories."""
    lines = Path("/proc/self/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    for name, bit in _WALK_THROUGH.items():
        if mask & (1 << bit):
            return name
    raise SetupError(
        "PostgreSQL does not run as root, and the account it would run as cannot enter the "
        "project's directory. Move the project where other accounts may enter, start it as an "
        "ordinary user, or set DATABASE_URL and REDIS_URL."
    )
