"""The directory of an embedded server: what is in it, whose it is, and how clients get in.

Theory. Whoever holds the lock on ``lock`` may run the server. The open file that holds it is passed
on to the server, whose processes all inherit it: so the directory is free when the last of them is
gone, and not when whoever started them is. No process number has to be believed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import attrs

from ..errors import EmbeddedUnavailable
from ._account import Account

SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 107  # what Linux has room for in a unix socket's address; macOS 3 less
_OURS = frozenset({"data", "data.new", "lock", "log"})
_LOG_BYTES = 10_000_000
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # as root, we may be in somebody else's directory


@attrs.frozen
class Holder:
    """Who has a directory: the number of the process, and what it says it is."""

    process: int
    purpose: str

    def __str__(self) -> str:
        return f"process {self.process} ({self.purpose})"


def _absolute(path: Path) -> Path:
    return path.absolute()


@attrs.frozen
class Directory:
    """A directory that holds a database, or will.

    Args:
        path: relative to the working directory, as it is now, or absolute.
    """

    path: Path = attrs.field(converter=_absolute)

    @property
    def data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.path / "data"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.path / "log"

    @property
    def major(self) -> int | None:
        """The version of the data; None if there is none yet.

        Raises:
            EmbeddedUnavailable: what is there cannot be read, or is not a database.
        """
        try:
            return int((self.data / "PG_VERSION").read_text())
        except FileNotFoundError:
            if self.data.exists():
                raise self.unavailable(
                    "data/ is there, but holds no database; move it away"
                ) from None
            return None
        except ValueError:
            raise self.unavailable("data/PG_VERSION is damaged; restore a backup") from None
        except OSError as error:
            raise self.refused(error) from error

    @property
    def socket_folder(self) -> Path:
        """The folder by which clients find the socket, on a path that is short enough."""
        if len(os.fsencode(self.data / SOCKET)) <= _SOCKET_PATH_BYTES:
            return self.data
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        # Not `tempfile`'s folder: all who want to connect have to come to the same one.
        return Path(f"/tmp/trio-services-{os.geteuid()}", name)  # noqa: S108 -- see `_link`

    @property
    def url(self) -> str:
        """How clients connect; there is no password, since only its user can reach the socket."""
        return (
            f"postgresql:///postgres?host={quote(str(self.socket_folder), safe='')}&user=postgres"
        )

    def unavailable(self, reason: str) -> EmbeddedUnavailable:
        """The error for when the server cannot run."""
        return EmbeddedUnavailable(str(self.path), reason)

    def refused(self, error: OSError) -> EmbeddedUnavailable:
        """The error for when the system does not let us."""
        what = error.strerror or str(error)
        name = f" ({error.filename})" if error.filename is not None else ""
        remedy = (
            "; run this as the user who owns it, or choose another directory"
            if isinstance(error, PermissionError)
            else ""
        )
        return self.unavailable(f"{what[:1].lower()}{what[1:]}{name}{remedy}")

    def verify(self) -> None:
        """Look for what would keep it from being one, without changing anything.

        Raises:
            EmbeddedUnavailable: there is something.
        """
        try:
            # Names are all that is asked for.
            names = os.listdir(self.path)  # noqa: PTH208
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.refused(error) from error
        foreign = [name for name in names if name not in _OURS and not name.startswith(".")]
        if foreign and "data" not in names:
            raise self.unavailable(
                f"it holds other files, such as {min(foreign)}; give a new directory"
            )

    # -- taking it ---------------------------------------------------------------------

    def claim(self, purpose: str) -> Claim | None:
        """Take the directory, and make it if need be; None if somebody has it.

        Raises:
            EmbeddedUnavailable: it cannot be had.
        """
        try:
            self.path.mkdir(mode=0o711, parents=True, exist_ok=True)
            self.verify()
            return Claim.make(self.path / "lock", purpose)
        except OSError as error:
            raise self.refused(error) from error

    def holder(self) -> Holder | None:
        """Who has the directory; None if nobody does.

        Raises:
            EmbeddedUnavailable: it cannot be looked at.
        """
        try:
            return _holder(self.path / "lock")
        except OSError as error:
            raise self.refused(error) from error

    # -- for who has it ----------------------------------------------------------------

    def tidy(self) -> None:
        """See to what has to be right now, and stay so: the way in, and the size of the log."""
        if self.socket_folder != self.data:
            _link(self.socket_folder, self.data)
        fd = self.open_log()
        try:
            if os.fstat(fd).st_size > _LOG_BYTES:
                os.truncate(fd, 0)  # the server appends to it: the next line is the first
        finally:
            os.close(fd)

    def tidy_away(self) -> None:
        """Remove the way in, if it is outside of the directory."""
        if self.socket_folder != self.data:
            self.socket_folder.unlink(missing_ok=True)

    def open_log(self) -> int:
        """A file descriptor to append to the log."""
        return os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK, 0o600)

    def make_data_folder(self, account: Account | None) -> Path:
        """An empty folder for `initdb`; what an interrupted one has left is removed."""
        fresh = self.path / "data.new"
        if fresh.exists():
            shutil.rmtree(fresh)
        fresh.mkdir(mode=0o700)
        if account is not None:
            os.chown(fresh, account.user, account.group)
        return fresh

    def adopt(self, fresh: Path) -> None:
        """`initdb` is done: what it made is the data."""
        fresh.rename(self.data)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a power cut takes the folder away from around its files
        finally:
            os.close(folder)

    def forget_stranger(self) -> None:
        """Remove a ``postmaster.pid`` whose number is now that of some other program.

        PostgreSQL takes whatever has the number for a server. In containers, where numbers come
        again after each restart, it would never start again.
        """
        file = self.data / "postmaster.pid"
        try:
            process = Path("/proc", file.read_text().split("\n", 1)[0])
            if process.is_dir() and not _is_at(process / "cwd", self.data):
                file.unlink()
        except FileNotFoundError:
            pass


class Claim:
    """A directory that is ours until this is closed, and all have ended who were given `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def make(cls, path: Path, purpose: str) -> Claim | None:
        """Take the lock, unless somebody has it."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
        if not _lock(fd):
            os.close(fd)
            return None
        os.truncate(fd, 0)
        os.write(fd, f"{os.getpid()} {purpose}\n".encode())
        return cls(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self.fd)


def _lock(fd: int) -> bool:
    import fcntl  # not on Windows

    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> Holder | None:
    try:
        fd = os.open(path, os.O_RDWR | _NO_LINK)
    except FileNotFoundError:
        return None
    try:
        if _lock(fd):
            return None
        process, _, purpose = os.read(fd, 1000).decode(errors="replace").strip().partition(" ")
        return Holder(int(process) if process.isdecimal() else 0, purpose)
    finally:
        os.close(fd)


def _link(link: Path, target: Path) -> None:
    """Let a short path lead to a folder.

    Raises:
        OSError: somebody else has the place.
    """
    link.parent.mkdir(mode=0o700, exist_ok=True)
    place = link.parent.lstat()
    if not stat.S_ISDIR(place.st_mode) or place.st_uid != os.geteuid() or place.st_mode & 0o022:
        raise PermissionError(1, "it is not only ours to write", str(link.parent))
    # Made anew each time: what clears up old temporary files goes by their age.
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.rename(link)


def _is_at(link: Path, folder: Path) -> bool:
    try:
        return link.samefile(folder)
    except OSError:  # of another user, who cannot be in our data
        return False
