"""Files that are read whole, and only if they are files: a FIFO or a device may never end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_UNREADABLE = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EACCES: "this user may not read it",
    errno.EPERM: "this user may not read it",
    errno.ELOOP: "its symbolic links lead in a circle",
}


class UnreadableError(Exception):
    """A file cannot be read, or is none; the message says why, for people."""


def read_regular_file(
    path: Path, *, largest: int, expected: str, check: Callable[[os.stat_result], None]
) -> bytes:
    """The bytes of a file. It never waits: not for a writer of a FIFO, not for a device.

    Args:
        path: the file.
        largest: how many bytes of it there may be; one more is read, to tell.
        expected: what it should be, such as ``a TOML file``.
        check: looks at its status once it is open, and raises `UnreadableError`.

    Raises:
        UnreadableError: it is no such file, or cannot be read.
    """
    try:
        # Some devices act on being opened, so what is not a file is refused before it is opened,
        # and again after, since it may have been replaced meanwhile.
        _check_kind(path.stat(), expected)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123 -- it is open already
            status = os.fstat(descriptor)
            _check_kind(status, expected)
            check(status)
            return file.read(largest + 1)
    except OSError as error:
        raise UnreadableError(_UNREADABLE.get(error.errno or 0, str(error.strerror))) from error
    except ValueError as error:  # a NUL in the path
        raise UnreadableError("no file can have such a path") from error


def _check_kind(status: os.stat_result, expected: str) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise UnreadableError(f"it is {_KINDS.get(kind, 'not a file')}; expected {expected}")
