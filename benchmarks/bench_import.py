"""What it costs to import the package, and to ask the command for help."""

from __future__ import annotations

import os
import subprocess
import sys

from _pairs import compare

NAMES = "Service, Supervisor, Child, WorkQueue, Workers, Schedule, every, graceful"


def cpu_ms(code: str) -> float:
    """CPU milliseconds of a Python process that runs `code`."""
    before = os.times()
    subprocess.run([sys.executable, "-c", code], check=True)
    after = os.times()
    seconds = after.children_user - before.children_user
    return 1000 * (seconds + after.children_system - before.children_system)


def many(code: str, times: int = 10) -> float:
    return sum(cpu_ms(code) for _ in range(times)) / times


compare(
    "import trio_services, against import trio",
    lambda: many("import trio_services"),
    lambda: many("import trio"),
    unit="CPU ms",
    target=1.25,
)
compare(
    f"from trio_services import {NAMES}, against import trio",
    lambda: many(f"from trio_services import {NAMES}"),
    lambda: many("import trio"),
    unit="CPU ms",
    target=1.25,
)
