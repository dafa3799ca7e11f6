"""A PostgreSQL server of the application's own, as a service."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs
import trio

from ..errors import EmbeddedUnavailable
from ..lifecycle import Health, graceful, surrounding_service
from ..services import Service
from ._account import NoAccount, account_for
from ._directory import Claim, Directory, Holder
from ._installation import Installation, NoInstallation, choose, installations
from ._postmaster import Postmaster, accepts_connections, guarded, runnable_by

_LOOK = 0.1  # seconds between two looks at a directory that somebody else has
_PATIENCE = 20.0  # seconds for the server of whoever has it to answer
_TIDY = 3600.0


def _directory(path: str | os.PathLike[str]) -> Directory:
    return Directory(Path(path))


@attrs.frozen
class EmbeddedServer(Service):
    """Run PostgreSQL on a directory, for this application and others on this machine.

    It is ready when clients can connect by `url`. Several applications may have one on the same
    directory: the first runs the server, the others use it, and one of them takes over when the
    first has gone; connections break at that moment.

    As root the server runs as the owner of the data, or the first of the users ``postgres``,
    ``pgserver`` and ``nobody`` that exists. It listens on a unix socket, which only that user and
    root can use. It is shut down when the application ends, however that ends.

    Args:
        directory: is made if need be. A relative path is taken from the working directory now.
        purpose: what others are told who find the directory taken.

    Attributes:
        url: what to connect to.
    """

    _directory: Directory = attrs.field(converter=_directory, alias="directory")
    purpose: str = attrs.field(default="an application", kw_only=True)

    @property
    def url(self) -> str:
        """How clients connect."""
        return self._directory.url

    @property
    def path(self) -> Path:
        """The directory."""
        return self._directory.path

    @property
    def is_new(self) -> bool:
        """Whether it has no database yet.

        Raises:
            EmbeddedUnavailable: the directory cannot be looked at.
        """
        return self._directory.major is None

    def holder(self) -> Holder | None:
        """Who runs the server on the directory now, or is about to; None if nobody does.

        Raises:
            EmbeddedUnavailable: the directory cannot be looked at.
        """
        return self._directory.holder()

    def unavailable(self, reason: str) -> EmbeddedUnavailable:
        """The error that tells why the server does not do what somebody wants."""
        return self._directory.unavailable(reason)

    def verify(self) -> None:
        """Look for what would keep it from running, without changing anything.

        Raises:
            EmbeddedUnavailable: there is something.
        """
        with self._told():
            self._directory.verify()
            account_for(self._directory.data)
            installation_for(self._directory)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the server, or wait to take over from whoever does, until told to stop.

        Raises:
            EmbeddedUnavailable: it cannot run, or has ended.

        Cancellation: a stop of the service is a fast shutdown, within its `stop_within`. When that
            is over, and at any other cancellation, it is an immediate one, of 2 s at most: nothing
            that was committed is lost by it.
        """
        claim, shared = await self._take(task_status)
        with claim, self._told():
            try:
                await self._serve(claim, trio.TASK_STATUS_IGNORED if shared else task_status)
            finally:
                self._directory.tidy_away()

    async def check(self) -> Health:
        """Whether clients can connect."""
        if await accepts_connections(self._directory):
            return Health.healthy()
        return Health.unhealthy(f"database in {self._directory.path} accepts no connections")

    @contextmanager
    def _told(self) -> Generator[None]:
        """Tell what goes wrong with the name of the directory."""
        try:
            yield
        except (NoInstallation, NoAccount) as error:
            raise self._directory.unavailable(str(error)) from error
        except OSError as error:
            raise self._directory.refused(error) from error

    async def _take(self, task_status: trio.TaskStatus[None]) -> tuple[Claim, bool]:
        """Wait until the directory is ours; and whether we were ready before it was."""
        ready = False
        patience = trio.current_time() + _PATIENCE
        while (claim := self._directory.claim(self.purpose)) is None:
            if not ready and await accepts_connections(self._directory):
                ready = True
                task_status.started()
            if not ready and trio.current_time() > patience:
                raise self._directory.unavailable(
                    f"{self._directory.holder() or 'another process'} has it, and its server does "
                    "not answer; stop that one"
                )
            await trio.sleep(_LOOK)
        return claim, ready

    async def _serve(self, claim: Claim, task_status: trio.TaskStatus[None]) -> None:
        directory = self._directory
        account = account_for(directory.data)
        installation = await trio.to_thread.run_sync(installation_for, directory)
        installation = await runnable_by(installation, account)
        async with guarded(directory, account, installation) as group:
            if directory.major is None:
                await group.make_data()
            directory.tidy()
            async with group.serving(claim.fd) as server:
                await server.wait_ready()
                task_status.started()
                with graceful():
                    await self._attend(server, group.guard)

    async def _attend(self, server: Postmaster, guard: trio.Process) -> None:
        """Return when the server has ended as it was told to.

        Raises:
            EmbeddedUnavailable: it ended in another way, or has no guard any more.
        """
        service = surrounding_service()
        async with trio.open_nursery() as nursery:

            async def shut_down_at_stop() -> None:
                if service is not None:
                    await service.wait_stop_requested()
                    server.shut_down()

            async def wait_for_guard() -> None:
                await guard.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(shut_down_at_stop)
            nursery.start_soon(wait_for_guard)
            while not await server.has_ended(within=_TIDY):
                self._directory.tidy()
            nursery.cancel_scope.cancel()
        if not server.running:
            if service is None or not service.stop_requested:
                raise server.ended()
        else:
            raise self._directory.unavailable("the guard of its server was killed")


def installation_for(directory: Directory) -> Installation:
    """What to run a directory's server with.

    Raises:
        NoInstallation: there is nothing that would do.
        EmbeddedUnavailable: the directory is not one.
    """
    if os.name != "posix":
        raise NoInstallation("it needs unix sockets; give a postgresql:// URL on this system")
    return choose(installations(), directory.major)
