"""The command as a process of its own: real signals, real sockets, real exit statuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import CONFIG, write

ROOT = Path(__file__).parents[2]
LIMIT = 30.0  # seconds, after which a process is taken to hang


@contextmanager
def started(*arguments: str, cwd: Path) -> Generator[subprocess.Popen[str]]:
    """The command as a process, which does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_services", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a process."""
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["config.toml: it is empty"]),
        ("[host", ["config.toml:1:6: Expected ']' at the end of a table declaration"]),
        (
            CONFIG.replace("count = 3", "count = true").replace('"90s"', "0"),
            [
                "config.toml:workers.work.count: true is not a whole number",
                "config.toml:schedules.report.every: 0 is too small; expected more than 0",
            ],
        ),
        (
            CONFIG.replace("clockwork:tick", "os:system"),
            [
                'config.toml:services.tick.use: "os" is not in host.imports; '
                "add its package there if this file may load it"
            ],
        ),
        (
            CONFIG.replace("clockwork:tick", "clockwork:tock"),
            ['config.toml:services.tick.use: module clockwork has no "tock"; did you mean "tick"?'],
        ),
        (
            CONFIG.replace("10s", "5s"),
            [
                "config.toml:host.stop_within: clock may need 10 s to stop, but has 5 s: lower the "
                "stop_within of services that come after each other, or raise the budget"
            ],
        ),
    ],
    ids=["empty", "torn", "two problems", "os:system", "no such code", "over budget"],
)
def test_bad_configuration_ends_the_process_with_status_2_and_a_line_for_each_problem(
    folder: Path, command: str, text: str, lines: list[str]
) -> None:
    write(folder / "config.toml", text)

    with started(command, "config.toml", cwd=folder) as process:
        status, out, err = ended(process)

    assert (status, out, err.splitlines()) == (2, "", lines)


def test_fifo_for_a_configuration_does_not_block_the_process(folder: Path) -> None:
    os.mkfifo(folder / "fifo")

    with started("run", "fifo", cwd=folder) as process:
        assert ended(process) == (2, "", "fifo: it is a FIFO; expected a TOML file\n")


def test_run_runs_until_sigterm_and_exits_with_status_0(folder: Path) -> None:
    with started("run", str(folder / "config.toml"), cwd=Path("/")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ticking\n"
        process.send_signal(signal.SIGTERM)
        status, _, err = ended(process)

    assert status == 0
    assert "Traceback" not in err


def test_run_answers_probes_at_its_admin_address(folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    with started("run", "config.toml", "--set", f"admin.bind={address}", cwd=folder) as process:
        answers = [answer(f"http://{address}/{probe}") for probe in ("live", "ready")]
        process.send_signal(signal.SIGINT)
        status, _, _ = ended(process)

    assert answers == [200, 200]
    assert status == 0


def test_socket_of_the_admin_address_is_beside_the_file(folder: Path) -> None:
    config = str(folder / "config.toml")
    with started("run", config, "--set", "admin.bind=unix:probes", cwd=Path("/")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ticking\n"
        assert (folder / "probes").is_socket()
        process.send_signal(signal.SIGTERM)
        status, _, _ = ended(process)

    assert status == 0
    assert not (folder / "probes").exists()


def test_run_of_what_ends_by_itself_exits_with_status_0(folder: Path) -> None:
    write(
        folder / "config.toml",
        '[host]\nimports = ["clockwork"]\n[services.once]\nuse = "clockwork:once"',
    )

    with started("run", "config.toml", cwd=folder) as process:
        status, out, _ = ended(process)

    assert (status, out) == (0, "done\n")


def answer(url: str) -> int:
    """The status of the first answer that is a good one, or of the last within the limit."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=LIMIT) as response:
                return int(response.status)
        except OSError:  # not listening yet, or not ready
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
