"""Who the server runs as: ourselves, or, as PostgreSQL refuses to run as root, somebody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import attrs

_CANDIDATES = ("postgres", "pgserver", "nobody")


class NoAccount(Exception):
    """There is nobody to run the server as; tells the remedy."""


class RunAs(TypedDict, total=False):
    """The part of a process's options that says who it runs as."""

    user: int
    group: int
    extra_groups: list[int]


@attrs.frozen
class Account:
    """A user of this machine and its group, to be switched to; `name` is for messages."""

    user: int
    group: int
    name: str

    @property
    def run_as(self) -> RunAs:
        """Options for a process that is to run as it."""
        return RunAs(user=self.user, group=self.group, extra_groups=[])


def account_for(data: Path) -> Account | None:
    """Who to run the server as whose data is, or will be, in a folder.

    None means ourselves. As root it is the owner of the data, if there is any, or else the first
    of ``postgres``, ``pgserver`` and ``nobody`` that exists.

    Raises:
        NoAccount: there is nobody.
    """
    import pwd  # not on Windows

    if os.geteuid() != 0:
        return None
    try:
        status = data.stat()
    except FileNotFoundError:
        status = None
    if status is not None and status.st_uid != 0:
        return Account(status.st_uid, status.st_gid, f"with the number {status.st_uid}")
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid, name)
    raise NoAccount(
        "PostgreSQL does not run as root, and there is no user to run it as; "
        "make one by: useradd --system postgres"
    )
