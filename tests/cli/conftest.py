from __future__ import annotations

import os
from pathlib import Path

import pytest

CODE = """\
import trio


async def tick():
    print("ticking", flush=True)
    await trio.sleep_forever()


async def once():
    print("done", flush=True)


async def report():
    pass


async def handle(item):
    pass
"""

CONFIG = """\
[host]
name = "clock"
stop_within = "10s"
imports = ["clockwork"]

[queues.jobs]
capacity = 5

[services.tick]
use = "clockwork:tick"

[workers.work]
queue = "jobs"
handler = "clockwork:handle"
count = 3
after = ["tick"]
stop_within = 0

[schedules.report]
call = "clockwork:report"
every = "90s"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an application, which is the current one."""
    (tmp_path / "clockwork.py").write_text(CODE)
    write(tmp_path / "config.toml", CONFIG)
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("TRIO_SERVICES__"):
            monkeypatch.delenv(name)
    return tmp_path


def write(path: Path, text: str) -> None:
    """Write a configuration file that only its user can change."""
    path.write_text(text)
    path.chmod(0o600)
