"""`status`, asked of a real process and of those that are none."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import CONFIG, write
from .test_command_line import exit_status
from .test_command_process import ended, started


@contextmanager
def answering(raw: bytes) -> Generator[str]:
    """The address of a server that answers one client so, whatever it asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_running_application_is_told_as_a_tree_or_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "config.toml", CONFIG + '[admin]\nbind = "unix:admin.sock"\n')
    with started("run", "config.toml", cwd=folder) as process:
        until = time.monotonic() + 30
        while exit_status("status", "config.toml") != 0 and time.monotonic() < until:
            time.sleep(0.1)
        capsys.readouterr()

        assert exit_status("status", "config.toml") == 0
        lines = capsys.readouterr().out.splitlines()
        assert exit_status("status", f"unix:{folder}/admin.sock", "--json") == 0
        told = json.loads(capsys.readouterr().out)
        process.terminate()
        assert ended(process)[0] == 0

    assert [line.split()[0] for line in lines] == [
        "clock",
        "admin",
        "reload",
        "tick",
        "work",
        "report",
        "queue",
    ]
    assert lines[3].split()[1:] == ["running", "healthy"]
    assert lines[-1] == "queue jobs: 0 of 5 waiting, 0 in hand, 0 done, 0 dead"
    assert told["services"]["name"] == "clock"
    assert told["queues"]["jobs"]["capacity"] == 5


@pytest.mark.parametrize("where", ["unix:nowhere.sock", "127.0.0.1:1"])
def test_nobody_who_listens_is_said_in_one_line(
    where: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("status", where) == 1
    assert capsys.readouterr().err == (
        f"trio-services status: nothing listens on {where}; is the application running?\n"
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n<", "no HTTP, or no JSON"),
        (b"220 mail\r\n", "no HTTP, or no JSON"),
    ],
)
def test_somebody_else_who_listens_is_said_in_one_line(
    raw: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with answering(raw) as where:
        assert exit_status("status", where) == 1
    assert capsys.readouterr().err == (
        f"trio-services status: what listens on {where} is not an admin server of this version: "
        f"{said}\n"
    )


def test_server_that_hangs_up_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with answering(b"") as where:
        assert exit_status("status", where) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"trio-services status: {where}: ")


def test_what_is_told_cannot_fool_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    service: dict[str, object] = {
        "name": "post",
        "state": "running",
        "health": {"status": "degraded", "reason": "\x1b[2J\n\udcff"},
        "restarts": 0,
        "waits_on": [],
        "children": [],
    }
    body = json.dumps({"services": service, "queues": {}}).encode()
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)) as where:
        assert exit_status("status", where) == 0
    assert capsys.readouterr().out == "post  running      degraded; ?[2J??\n"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("config.toml", "config.toml has no [admin] bind, so nobody can ask"),
        ("127.0.0.1:0", "port 0 is any free one"),
        ("nowhere.toml", "'nowhere.toml' is neither a file nor an address"),
        ("10.0.0.1:80", "is not loopback"),
    ],
)
def test_wrong_place_to_ask_is_bad_usage(
    where: str, said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("status", where) == 2
    assert said in capsys.readouterr().err


def test_wrong_configuration_is_refused_as_by_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "config.toml", "")
    assert exit_status("status", "config.toml") == 2
    assert capsys.readouterr().err == "config.toml: it is empty\n"
