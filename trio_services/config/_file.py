"""The configuration file itself: the only part of loading that touches the disk."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError
from ._disk import UnreadableError, read_regular_file
from ._load import Check, load_text
from ._problems import one_line
from ._schema import Configuration

_LARGEST = 1024 * 1024  # bytes
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def load(
    path: str | os.PathLike[str],
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    checks: Mapping[str, Check] | None = None,
) -> Configuration:
    """Read a configuration file; nothing that it names is imported.

    Args:
        path: the TOML file.
        environment: variables, of which those like ``TRIO_SERVICES__LOG__LEVEL`` override the
            file; secrets may be in others. Default: the process's.
        overrides: arguments like ``log.level=debug``, which override both.
        checks: for the dotted keys of texts that rooms above this one read, such as
            ``admin.bind``: what raises ValueError, with a sentence, for a wrong one.

    Raises:
        ConfigError: with one line for each thing that is wrong with the file or in it.
    """
    source = Path(path)
    return load_text(
        decode(read_file(source), source),
        source=source,
        environment=os.environ if environment is None else environment,
        overrides=overrides,
        checks=checks or {},
    )


def read_file(path: Path) -> bytes:
    """The bytes of a configuration file that nobody but its user and root can change.

    Raises:
        ConfigError: with one line.
    """
    try:
        data = read_regular_file(
            path,
            largest=_LARGEST,
            expected="a TOML file",
            check=lambda status: _check_writers(path, status),
        )
    except UnreadableError as error:
        raise _refusal(path, str(error)) from error
    if len(data) > _LARGEST:
        raise _refusal(path, f"it is too large; expected at most {_LARGEST // 1024 // 1024} MiB")
    return data


def decode(data: bytes, path: Path) -> str:
    """The text of a configuration file.

    Raises:
        ConfigError: with one line.
    """
    if data.startswith(_BOMS):
        raise _refusal(path, "it begins with a byte order mark; save it as UTF-8 without one")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _refusal(path, f"line {line} is not UTF-8") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _refusal(path, f"line {line} has a NUL character; it may have been torn in writing")
    if not text.strip():
        raise _refusal(path, "it is empty")
    return text


def _check_writers(path: Path, status: os.stat_result) -> None:
    """Refuse a file that others can change: it says which code is run."""
    if sys.platform == "win32":
        return
    by_all = bool(status.st_mode & stat.S_IWOTH)
    by_group = bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)
    if by_all or by_group:
        who = "everybody" if by_all else "its group"
        raise UnreadableError(f"{who} can write to it; run: chmod go-w {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise UnreadableError(
            f"it belongs to user {status.st_uid}; expected this user ({os.geteuid()}) or root"
        )


def _is_private(group: int) -> bool:
    """Whether a group is this user's own, as many systems give people one, with nobody else in it.

    There a umask of 002 is usual, and what somebody clones or unpacks is writable by that group.
    """
    import grp
    import pwd

    try:
        user, members = pwd.getpwuid(os.geteuid()), grp.getgrgid(group)
    except KeyError:
        return False
    alone = not set(members.gr_mem) - {user.pw_name}
    return user.pw_uid != 0 and members.gr_name == user.pw_name and alone


def _refusal(path: Path, reason: str) -> ConfigError:
    return ConfigError([one_line(f"{path}: {reason}")])
