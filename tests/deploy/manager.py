"""A service manager's notify socket, and `trio-services run` as a process that it watches."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.cli.conftest import write
from tests.host.process import Program, running

CODE = """\
import os
import time
import trio
from pathlib import Path
from trio_services import Health, Service, current_service

HERE = Path(__file__).parent


class Work(Service):
    async def check(self):
        ill = (HERE / "ill").exists()
        return Health.unhealthy("no bread\\nand no wine") if ill else Health.healthy()

    async def run(self):
        while True:
            if (HERE / "block").exists():
                time.sleep(30)
            if (HERE / "fail").exists():
                raise ValueError("no luck")
            if not (HERE / "stale").exists():
                current_service().progress()
            await trio.sleep(0.02)


async def slow(*, task_status):
    while (HERE / "slow").exists():
        await trio.sleep(0.02)
    task_status.started()
    await trio.sleep_forever()
"""

CONFIG = """\
[host]
name = "bakery"
imports = ["baking"]

[services.work]
use = "baking:Work"
stale_after = 0.3
backoff = { initial = 20, jitter = 0 }

[services.slow]
use = "baking:slow"
"""


@attrs.frozen
class Manager:
    """What it was told, a datagram at a time."""

    sock: socket.socket
    address: str

    def next(self, timeout: float = 20.0) -> list[str]:
        """The lines of the next datagram."""
        self.sock.settimeout(timeout)
        return self.sock.recv(65536).decode().split("\n")

    def wait_for(self, line: str, timeout: float = 20.0) -> list[str]:
        """The lines of the first datagram with this one."""
        until = time.monotonic() + timeout
        seen: list[list[str]] = []
        while time.monotonic() < until:
            seen.append(self.next(timeout))
            if line in seen[-1]:
                return seen[-1]
        raise AssertionError(f"no {line!r} in {seen}")

    def during(self, seconds: float) -> list[list[str]]:
        """All datagrams that come in a span of time, and that have come before."""
        until = time.monotonic() + seconds
        seen: list[list[str]] = []
        while (left := until - time.monotonic()) > 0:
            try:
                seen.append(self.next(left))
            except TimeoutError:
                break
        return seen


@contextmanager
def listening(address: str) -> Generator[Manager]:
    """A manager at a path, or an abstract address that begins with ``@``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        yield Manager(sock, address)


@contextmanager
def bakery(
    folder: Path, address: str, *, config: str = CONFIG, **environment: str
) -> Generator[Program]:
    """The application as a process, which is to notify this address."""
    (folder / "baking.py").write_text(CODE)
    write(folder / "bakery.toml", config)
    words = ["trio-services", "run", str(folder / "bakery.toml")]
    code = f"import sys\nsys.argv = {words!r}\nfrom trio_services.cli import main\nmain()\n"
    told = {"NOTIFY_SOCKET": address, **environment}
    assert "NOTIFY_SOCKET" not in os.environ
    with running(folder, code, prelude="", environment=told) as program:
        yield program
