"""Embedded servers for tests: in this process, and in applications of their own."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import LiteralString

import psycopg

from trio_services.pg import EmbeddedServer

from ..host.process import Program, running

AS_ROOT = os.geteuid() == 0
USERS = ["root", "nobody"] if AS_ROOT else ["me"]

# What root's Python needs to run may be closed to others: it becomes one of them when all is there.
PRELUDE = """\
import os, pwd, sys
import fcntl, importlib.metadata, logging.config, psycopg, shutil, trio
from trio_services import Child, HostSettings, Supervisor, run
from trio_services.pg import EmbeddedServer

async def nothing():
    pass

trio.run(nothing)
if os.geteuid() == 0 and "BECOME" in os.environ:
    entry = pwd.getpwnam(os.environ["BECOME"])
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)

server = EmbeddedServer(os.environ["DIRECTORY"], purpose="a test")

async def told():
    print("ready", flush=True)
    await trio.sleep_forever()

"""

APPLICATION = """\
run(Supervisor("app", [Child(server, name="database"), Child(told, after="database")]))
"""


@contextmanager
def application(
    tmp_path: Path, directory: Path, user: str, code: str = APPLICATION
) -> Generator[Program]:
    """An application that runs a server on a directory, as a process of a user."""
    tmp_path.mkdir(exist_ok=True)
    environment = {"DIRECTORY": str(directory)}
    if user not in ("root", "me"):
        environment["BECOME"] = user
    with running(tmp_path, code, prelude=PRELUDE, environment=environment) as program:
        yield program


def _fast_place() -> str:
    """Memory, if there is enough, or else the disk, whose speed is not what is tested."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 500_000_000:
        return str(memory)
    return "/tmp"


@contextmanager
def folder_of(user: str, *, for_programs: bool = False) -> Generator[Path]:
    """A folder of a user, which ends with the block; programs may not run in the fast place."""
    place = "/tmp" if for_programs else _fast_place()
    folder = Path(tempfile.mkdtemp(prefix="trio-services-test-", dir=place))
    try:
        if user not in ("root", "me"):
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
        yield folder
    finally:
        # A server whose application was killed may be about to go.
        assert eventually(lambda: not any(map(processes, folder.iterdir())))
        shutil.rmtree(folder)


def copy_database(template: Path, folder: Path, user: str) -> Path:
    """A directory with a copy of a database, all of a user but for root's."""
    directory = folder / "db"
    directory.mkdir()
    shutil.copytree(template / "data", directory / "data")
    owner = template / "data"
    ids = (owner.stat().st_uid, owner.stat().st_gid)
    if user not in ("root", "me"):
        entry = pwd.getpwnam(user)
        ids = (entry.pw_uid, entry.pw_gid)
        os.chown(directory, *ids)
    if AS_ROOT:
        for path in (directory / "data", *(directory / "data").rglob("*")):
            os.chown(path, *ids)
    return directory


def query(directory: Path, sql: LiteralString) -> object:
    """The first value that a statement gives."""
    with psycopg.connect(EmbeddedServer(directory).url, autocommit=True) as connection:
        row = connection.execute(sql).fetchone()
        assert row is not None
        return row[0]


def execute(directory: Path, sql: LiteralString) -> None:
    """Execute a statement."""
    with psycopg.connect(EmbeddedServer(directory).url, autocommit=True) as connection:
        connection.execute(sql)


def processes(directory: Path) -> list[int]:
    """The processes that work in a database, and their guards."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").samefile(directory / "data"):
                found.append(int(entry.name))
    return found


def postmaster(directory: Path) -> int:
    """The number of the server's first process."""
    return int((directory / "data" / "postmaster.pid").read_text().split()[0])


def group_of(process: int) -> int:
    """The number of a process's group, which is that of its guard."""
    return os.getpgid(process)


def eventually(condition: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether something comes true in time."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True
