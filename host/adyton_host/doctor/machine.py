# SPDX-License-Identifier: Apache-2.0
"""The machine as the doctor sees it: files below a root, the processor, the clock, and who is asking.

Everything that a finding depends on comes through :class:`Machine`, so that a test can look at a machine that is not
there: a directory stands in for ``/``, and functions for the instructions. Nothing here changes anything.
"""

import os
import platform
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from adyton_host.doctor.clock_state import ClockState, read_clock_state
from adyton_host.doctor.cpuid import Registers, read_cpuid

_MAX_TEXT_BYTES: Final = 1 << 20
GROUP_RW: Final = 0o060
_OWNER_RW: Final = 0o600
_OTHERS_RW: Final = 0o006
_RUN_TIMEOUT_S: Final = 20.0
_PASSWD_FIELDS: Final = 7
_GROUP_FIELDS: Final = 4
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may open a device or a socket.

    Attributes:
        owner_id: Its user.
        group_id: Its group.
        mode: Permission bits.
    """

    owner_id: int
    group_id: int
    mode: int

    def allows(self, user_id: int, group_ids: frozenset[int]) -> bool:
        """Whether a process of this user may read and write it, by the rules of path_resolution(7)."""
        if user_id == 0:
            return True
        if user_id == self.owner_id:
            return self.mode & _OWNER_RW == _OWNER_RW
        if self.group_id in group_ids:
            return self.mode & GROUP_RW == GROUP_RW
        return self.mode & _OTHERS_RW == _OTHERS_RW


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine.

    Attributes:
        root: What stands for ``/``.
        architecture: As ``uname -m`` says.
        user_id: Who is asking.
        group_ids: The groups that the asking process is in, now.
        search_path: Where programs are looked for, below the root.
        cpuid: Registers for a leaf and sub-leaf; None where they cannot be read.
        clock_state: What the kernel says of its clock; None where it does not.
        now_s: Unix time.
        free_bytes: Free space where a path lies.
    """

    root: Path = Path("/")
    architecture: str = field(default_factory=platform.machine)
    user_id: int = field(default_factory=os.geteuid)
    group_ids: frozenset[int] = field(default_factory=lambda: frozenset({os.getegid(), *os.getgroups()}))
    search_path: str = field(default_factory=lambda: os.environ.get("PATH", _PATH))
    cpuid: Callable[[int, int], Registers | None] = read_cpuid
    clock_state: Callable[[], ClockState | None] = read_clock_state
    now_s: Callable[[], float] = time.time  # noqa: TID251 -- the edge
    free_bytes: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free

    def path(self, name: str) -> Path:
        """Where the absolute path ``name`` lies below the root."""
        return self.root / name.lstrip("/")

    def exists(self, name: str) -> bool:
        """Whether something is there."""
        return self.path(name).exists()

    def read(self, name: str) -> str | None:
        """The text of a small file, or None if it cannot be read."""
        try:
            with self.path(name).open("rb") as file:
                return file.read(_MAX_TEXT_BYTES).decode("utf-8", "replace")
        except OSError:
            return None

    def matching(self, pattern: str) -> list[Path]:
        """Paths below the root that match, in order."""
        return sorted(self.root.glob(pattern.lstrip("/")))

    def access(self, name: str) -> Access | None:
        """Owner, group and permissions of what is there, or None if nothing is."""
        try:
            status = self.path(name).stat()
        except OSError:
            return None
        return Access(owner_id=status.st_uid, group_id=status.st_gid, mode=stat.S_IMODE(status.st_mode))

    def group_name(self, group_id: int) -> str:
        """What ``/etc/group`` calls it; its number if it is not listed."""
        return next((name for name, number, _ in self._groups() if number == group_id), str(group_id))

    def groups_of(self, user: str) -> frozenset[int]:
        """Numbers of the groups that a user of ``/etc/passwd`` is in; empty if there is no such user."""
        entry = self._passwd(user)
        if entry is None:
            return frozenset()
        listed = (number for _, number, members in self._groups() if user in members)
        return frozenset({int(entry[3]), *listed})

    def user_id_of(self, user: str) -> int | None:
        """Number of a user of ``/etc/passwd``."""
        entry = self._passwd(user)
        return None if entry is None else int(entry[2])

    def find_program(self, name: str) -> Path | None:
        """The first executable of this name on the search path."""
        for directory in self.search_path.split(":"):
            candidate = self.path(directory) / name
            if directory and candidate.is_file() and os.access(candidate, os.X_OK):
                return candidate
        return None

    def output_of(self, program: Path, *arguments: str) -> str | None:
        """What a program prints on standard output; None if it fails or does not end."""
        try:
            done = subprocess.run(  # noqa: S603 -- a program of the operator's own search path; no shell
                [str(program), *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_RUN_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def _passwd(self, user: str) -> list[str] | None:
        for line in (self.read("/etc/passwd") or "").splitlines():
            entry = line.split(":")
            if (
                entry[0] == user
                and len(entry) >= _PASSWD_FIELDS
                and entry[2].isdecimal()
                and entry[3].isdecimal()
            ):
                return entry
        return None

    def _groups(self) -> list[tuple[str, int, list[str]]]:
        found = []
        for line in (self.read("/etc/group") or "").splitlines():
            name, _, rest = line.partition(":")
            parts = rest.split(":")
            if len(parts) >= _GROUP_FIELDS - 1 and parts[1].isdecimal():
                found.append((name, int(parts[1]), parts[2].split(",")))
        return found
