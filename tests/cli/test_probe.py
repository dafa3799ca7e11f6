"""`probe` as a process, against a real application."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.deploy.manager import CONFIG, Manager, bakery, listening
from tests.host.process import ROOT, Program

from .conftest import write

UNIX = CONFIG + '[admin]\nbind = "unix:admin.sock"\n'


def probe(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status, standard output and standard error of a probe."""
    done = subprocess.run(
        [sys.executable, "-m", "trio_services", "probe", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "http_proxy": "http://nowhere:1"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def manager(tmp_path: Path) -> Generator[Manager]:
    with listening(str(tmp_path / "notify")) as manager:
        yield manager


@pytest.fixture
def baking(tmp_path: Path, manager: Manager) -> Generator[Program]:
    """An application that answers at a unix socket, and starts as long as there is `slow`."""
    (tmp_path / "slow").touch()
    with bakery(tmp_path, manager.address, config=UNIX) as program:
        manager.next()
        while not (tmp_path / "admin.sock").exists():
            manager.during(0.05)
        yield program


def test_probe_tells_by_its_status_whether_the_application_is_live_and_ready(
    tmp_path: Path, manager: Manager, baking: Program
) -> None:
    assert probe(tmp_path, "live", "bakery.toml") == (0, "alive\n", "")
    status, out, _ = probe(tmp_path, "ready", "bakery.toml")
    assert (status, out) == (1, "not ready; bakery/slow is starting\n")

    (tmp_path / "slow").unlink()
    manager.wait_for("READY=1")
    assert probe(tmp_path, "ready", "--address", "unix:admin.sock") == (0, "ready\n", "")


def test_application_whose_loop_is_blocked_is_not_live(
    tmp_path: Path, manager: Manager, baking: Program
) -> None:
    (tmp_path / "slow").unlink()
    manager.wait_for("READY=1")
    (tmp_path / "block").touch()
    manager.during(0.5)
    status, out, _ = probe(tmp_path, "live", "bakery.toml", "--within", "0.5")
    assert (status, out) == (1, "no answer: timed out\n")


def test_probe_asks_an_address_directly_and_past_proxies(tmp_path: Path, manager: Manager) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with bakery(tmp_path, manager.address, config=f'{CONFIG}[admin]\nbind = "{address}"\n'):
        manager.wait_for("READY=1")
        assert probe(tmp_path, "ready", "--address", address) == (0, "ready\n", "")
    status, out, _ = probe(tmp_path, "live", "--address", address)
    assert status == 1
    assert out.startswith("no answer: ")
    assert "refused" in out


def test_answer_of_another_server_is_none(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-m", "trio_services", "probe", "live", "--address"]
        with subprocess.Popen(
            [*command, f"127.0.0.1:{port}"],
            env={"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out.startswith("no answer: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["live"], "either a configuration file or --address is needed"),
        (["live", "bakery.toml", "--address", "127.0.0.1:1"], "either a configuration file or"),
        (["live", "--address", "8.8.8.8:80"], "is not loopback"),
        (["live", "--address", "127.0.0.1:0"], "port 0 is any free one"),
        (["live", "--address", ""], "is no address"),
        (["live", "bakery.toml"], "has no [admin] table"),
        (["live", "nowhere.toml"], "there is no such file"),
        (["well", "bakery.toml"], "'well' is not one of"),
    ],
)
def test_wrong_probe_exits_with_status_2_and_says_why(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    write(tmp_path / "bakery.toml", CONFIG)
    status, out, err = probe(tmp_path, *arguments)
    assert (status, out) == (2, "")
    assert said in err
