"""The processes of an embedded server: `initdb`, `postgres`, and the guard that outlives us.

Theory. A child outlives a parent that is killed, and the kernel's "die with your parent" goes by
the thread that started it. So a guard, a few lines of shell, waits on a pipe of which we hold the
other end and never write to. When it breaks, we are gone, however that came: the guard shuts down
all of its process group, to which `initdb` and `postgres` belong. The group's number cannot become
that of others as long as the guard is in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self, cast

import attrs
import trio

from ..errors import EmbeddedUnavailable
from ._account import Account, RunAs
from ._directory import SOCKET, Directory
from ._installation import Installation, NoInstallation, copied

_GUARD = "trap '' HUP INT QUIT TERM; read _; kill -QUIT 0; sleep 6; kill -KILL 0"
_IMMEDIATE = 0.8  # seconds for an immediate shutdown: it only has to tell the others and go
_KILLED = 1.0  # seconds for the kernel to end what was killed
_FIRST_LOOK = 0.01  # seconds until we look for the first time whether it is ready
_LAST_LOOK = 0.5
_ANSWER = 2.0  # seconds for a server to answer, which one that was stopped by a signal never does
_STARTUP = b"\0\0\0\x29\0\3\0\0user\0postgres\0database\0postgres\0\0"

_SETTINGS = {
    "listen_addresses": "",
    # In the data directory, which is the server's working directory: short, and safe.
    "unix_socket_directories": ".",
    "unix_socket_permissions": "0700",
    "log_checkpoints": "off",
}


async def accepts_connections(directory: Directory) -> bool:
    """Whether a server lets clients in now, within 2 s.

    Cancellation: at any time.
    """
    with trio.move_on_after(_ANSWER), suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_unix_socket(directory.socket_folder / SOCKET) as stream:
            await stream.send_all(_STARTUP)
            # Its whole greeting, or else an error, such as that it is starting up.
            return (await stream.receive_some(8192)).startswith(b"R")
    return False


async def runnable_by(installation: Installation, account: Account | None) -> Installation:
    """An installation that an account can run: this one, or else a copy of it.

    Raises:
        NoInstallation: it cannot run any.
    """
    if account is None or await _can_run(installation, account):
        return installation
    if installation.bundled:
        try:
            copy = await trio.to_thread.run_sync(copied, installation)
        except OSError as error:
            raise NoInstallation(
                f"PostgreSQL's programs cannot be copied to where user {account.name} can run "
                f"them: {error}"
            ) from error
        if await _can_run(copy, account):
            return copy
        installation = copy
    raise NoInstallation(
        f"user {account.name} cannot run {installation.programs}; let it read that folder, since "
        "PostgreSQL does not run as root"
    )


async def _can_run(installation: Installation, account: Account) -> bool:
    try:
        done = await trio.run_process(
            [installation.program("initdb"), "--version"],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
            cwd="/",
            **account.run_as,
        )
    except PermissionError:
        return False
    return done.returncode == 0


@attrs.frozen
class Guarded:
    """Where the processes of a server are started: who as, and in which process group."""

    directory: Directory
    account: Account | None
    installation: Installation
    guard: trio.Process

    @property
    def _run_as(self) -> RunAs:
        return RunAs() if self.account is None else self.account.run_as

    async def make_data(self) -> None:
        """Run `initdb`, and adopt what it made when it is whole.

        Raises:
            EmbeddedUnavailable: it failed.
        """
        directory = self.directory
        fresh = await trio.to_thread.run_sync(directory.make_data_folder, self.account)
        utf8 = ["--encoding=UTF8", "--locale=C"]
        if self.installation.major >= 17:  # which need not ask the system what a letter is
            utf8 += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        with _Way(fresh, self.account) as way:
            done = await trio.run_process(
                [
                    self.installation.program("initdb"),
                    *("-D", way.path, "--username=postgres", "--auth=trust", *utf8),
                ],
                check=False,
                capture_stdout=True,
                capture_stderr=True,
                pass_fds=way.fds,
                cwd="/",
                env={**os.environ, "LC_ALL": "C"},
                process_group=self.guard.pid,
                **self._run_as,
            )
        if done.returncode:
            said = done.stderr.decode(errors="replace")
            raise directory.unavailable(f"initdb failed: {_worst_line(said)}")
        await trio.to_thread.run_sync(directory.adopt, fresh)

    @asynccontextmanager
    async def serving(self, claim: int) -> AsyncGenerator[Postmaster]:
        """Run `postgres` inside this block; when it is left, it is shut down immediately.

        Args:
            claim: the file descriptor that the directory is ours by.
        """
        directory = self.directory
        directory.forget_stranger()
        settings = [part for item in _SETTINGS.items() for part in ("-c", "=".join(item))]
        log = directory.open_log()
        try:
            begin = os.fstat(log).st_size
            with _Way(directory.data, self.account) as way:
                process = await trio.lowlevel.open_process(
                    [self.installation.program("postgres"), "-D", way.path, "-p5432", *settings],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(*way.fds, claim),
                    cwd="/",
                    env={**os.environ, "LC_ALL": "C"},
                    process_group=self.guard.pid,
                    **self._run_as,
                )
        finally:
            os.close(log)
        postmaster = Postmaster(directory, process, begin)
        try:
            yield postmaster
        finally:
            with trio.move_on_after(_IMMEDIATE + _KILLED, shield=True):
                await postmaster.shut_down_immediately()


@asynccontextmanager
async def guarded(
    directory: Directory, account: Account | None, installation: Installation
) -> AsyncGenerator[Guarded]:
    """A process group whose processes are shut down when this block is left, or we are gone."""
    run_as = RunAs() if account is None else account.run_as
    guard = await trio.lowlevel.open_process(
        ["sh", "-c", _GUARD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        process_group=0,
        **run_as,
    )
    pipe = cast("trio.abc.SendStream", guard.stdin)
    try:
        yield Guarded(directory, account, installation, guard)
    finally:
        if guard.returncode is None:
            # Whatever is left goes with the guard, whose number is its own until it is waited for.
            os.killpg(guard.pid, signal.SIGKILL)
        with trio.move_on_after(_KILLED, shield=True):
            await guard.wait()
            await pipe.aclose()


@attrs.frozen
class Postmaster:
    """A server that was started."""

    _directory: Directory
    _process: trio.Process
    _begin: int  # where its part of the log begins

    async def wait_ready(self) -> None:
        """Return when it accepts connections.

        Raises:
            EmbeddedUnavailable: it ended instead.
        """
        look = _FIRST_LOOK
        while not await accepts_connections(self._directory):
            if await self.has_ended(within=look):
                raise self.ended()
            look = min(2 * look, _LAST_LOOK)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def has_ended(self, *, within: float) -> bool:
        """Whether it ends within so many seconds."""
        with trio.move_on_after(within):
            await self._process.wait()
        return not self.running

    def ended(self) -> EmbeddedUnavailable:
        """The error that tells how it ended."""
        status = self._process.returncode or 0
        how = f"with status {status}" if status >= 0 else f"by {signal.Signals(-status).name}"
        with self._directory.log.open(errors="replace") as log:
            log.seek(self._begin)
            said = log.read()
        return self._directory.unavailable(
            f"the server ended {how}: {_worst_line(said)}; see {self._directory.log}"
        )

    def shut_down(self) -> None:
        """Let it end its sessions, write everything down and end ("fast" shutdown)."""
        self._process.send_signal(signal.SIGINT)

    async def shut_down_immediately(self) -> None:
        """End it now; the next start recovers what it had not written down.

        Cancellation: leaves it alone.
        """
        with trio.move_on_after(_IMMEDIATE):
            self._process.send_signal(signal.SIGQUIT)
            await self._process.wait()
        self._process.kill()
        await self._process.wait()


class _Way:
    """How a process gets to a folder that is its own, below folders that may be closed to it.

    As root, on Linux, it is handed the open folder.

    Attributes:
        path: the folder, as the process has to name it.
        fds: what the process has to inherit.
    """

    def __init__(self, folder: Path, account: Account | None) -> None:
        self.path = str(folder)
        self.fds: tuple[int, ...] = ()
        if account is not None and Path("/proc/self/fd").is_dir():
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            self.path = f"/proc/self/fd/{fd}"
            self.fds = (fd,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for fd in self.fds:
            os.close(fd)


def _worst_line(said: str) -> str:
    """The line that tells what went wrong, if there is one, or else the last."""
    lines = said.split("\n")
    for mark in ("FATAL:", "PANIC:", "error:"):
        for line in lines:
            if mark in line:
                return line.partition(mark)[2].strip()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
