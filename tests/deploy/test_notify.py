"""What a service manager is told, on a real socket, by a real process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from trio_services.deploy import open_notifier

from .manager import CONFIG, Manager, bakery, listening


@pytest.fixture
def manager(tmp_path: Path) -> Generator[Manager]:
    with listening(str(tmp_path / "notify")) as manager:
        yield manager


def test_ready_is_told_once_all_services_are_and_stopping_before_they_stop(
    tmp_path: Path, manager: Manager
) -> None:
    (tmp_path / "slow").touch()
    with bakery(tmp_path, manager.address) as program:
        assert manager.next()[0].startswith("STATUS=starting: ")
        assert all("READY=1" not in told for told in manager.during(0.5))
        (tmp_path / "slow").unlink()
        assert manager.wait_for("READY=1") == ["READY=1", "STATUS=ready"]
        program.send(signal.SIGTERM)
        assert manager.next() == ["STOPPING=1", "STATUS=stopping"]
        assert program.wait() == 0
        assert manager.during(0.1) == []
        assert "Traceback" not in program.err


def test_abstract_address_is_told_too(tmp_path: Path) -> None:
    with (
        listening(f"@trio-services-{os.getpid()}") as manager,
        bakery(tmp_path, manager.address) as program,
    ):
        manager.wait_for("READY=1")
        program.send(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert program.wait() == 0


def test_stop_before_ready_is_told_without_ready(tmp_path: Path, manager: Manager) -> None:
    (tmp_path / "slow").touch()
    with bakery(tmp_path, manager.address) as program:
        manager.next()
        program.send(signal.SIGTERM)
        seen = manager.during(1.0)
        assert program.wait() == 0
    assert ["STOPPING=1", "STATUS=stopping"] in seen
    assert not any("READY=1" in told for told in seen)


def test_reload_is_told_with_its_time_and_its_end(tmp_path: Path, manager: Manager) -> None:
    with bakery(tmp_path, manager.address) as program:
        manager.wait_for("READY=1")
        before = time.monotonic_ns() // 1000
        program.send(signal.SIGHUP)
        reloading, now, status = manager.wait_for("RELOADING=1")
        assert (reloading, status) == ("RELOADING=1", "STATUS=reloading")
        assert before <= int(now.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
        assert manager.next() == ["READY=1", "STATUS=ready"]


def test_reload_of_a_wrong_file_ends_too(tmp_path: Path, manager: Manager) -> None:
    with bakery(tmp_path, manager.address) as program:
        manager.wait_for("READY=1")
        (tmp_path / "bakery.toml").write_text(CONFIG.replace("[host]", "[hots]"))
        program.send(signal.SIGHUP)
        manager.wait_for("RELOADING=1")
        assert manager.next() == ["READY=1", "STATUS=ready"]


def test_watchdog_is_fed_at_half_of_its_time(tmp_path: Path, manager: Manager) -> None:
    with bakery(tmp_path, manager.address, WATCHDOG_USEC="300000"):
        manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1")
        assert 4 <= manager.during(1.5).count(["WATCHDOG=1"]) <= 11


@pytest.mark.parametrize("trouble", ["block", "ill", "stale"])
def test_watchdog_is_not_fed_when_the_loop_or_a_critical_service_stalls(
    tmp_path: Path, manager: Manager, trouble: str
) -> None:
    with bakery(tmp_path, manager.address, WATCHDOG_USEC="300000"):
        manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1")
        (tmp_path / trouble).touch()
        manager.during(2.0)
        assert ["WATCHDOG=1"] not in manager.during(1.0)
        if trouble != "block":
            (tmp_path / trouble).unlink()
            manager.wait_for("WATCHDOG=1")


def test_service_that_its_supervisor_takes_care_of_leaves_the_watchdog_fed(
    tmp_path: Path, manager: Manager
) -> None:
    with bakery(tmp_path, manager.address, WATCHDOG_USEC="300000"):
        manager.wait_for("READY=1")
        (tmp_path / "fail").touch()
        manager.wait_for("STATUS=not ready: bakery/work is backing off after ValueError: no luck")
        manager.during(2.0)
        assert ["WATCHDOG=1"] in manager.during(1.0)


@pytest.mark.parametrize("stranger", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}])
def test_watchdog_of_another_process_is_not_fed(
    tmp_path: Path, manager: Manager, stranger: dict[str, str]
) -> None:
    environment = {"WATCHDOG_USEC": "100000", **stranger}
    with bakery(tmp_path, manager.address, **environment):
        manager.wait_for("READY=1")
        assert ["WATCHDOG=1"] not in manager.during(1.0)


@pytest.mark.parametrize("address", ["/nowhere/notify", "/" + "x" * 300, "vsock:2:1", "notify", ""])
def test_manager_that_cannot_be_told_harms_nothing(tmp_path: Path, address: str) -> None:
    with bakery(tmp_path, address) as program:
        until = time.monotonic() + 20
        while "bakery: ready" not in program.err:
            assert time.monotonic() < until, program
            time.sleep(0.02)
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        assert "systemd: failed" not in program.err


# -- the notifier itself ------------------------------------------------------------------


def test_manager_that_reads_nothing_does_not_block_and_gets_the_last_state_later(
    manager: Manager,
) -> None:
    with open_notifier({"NOTIFY_SOCKET": manager.address}) as notifier:
        assert notifier is not None
        for _ in range(1000):  # more than the socket holds
            notifier.feed_watchdog()
        notifier.tell(RELOADING="1")
        notifier.tell(READY="1", STATUS="ready")
        notifier.tell(STATUS="degraded")
        manager.during(0.2)
        notifier.remind()
        assert manager.next(1) == ["READY=1", "STATUS=degraded"]
        notifier.remind()
        assert manager.during(0.1) == []


def test_words_cannot_forge_an_assignment_and_are_cut(manager: Manager) -> None:
    with open_notifier({"NOTIFY_SOCKET": manager.address}) as notifier:
        assert notifier is not None
        notifier.tell(STATUS="bad\nSTOPPING=1 \ud800" + "x" * 5000)
        (line,) = manager.next(1)
    assert line.startswith("STATUS=bad STOPPING=1 ?x")
    assert len(line) < 1100


def test_nobody_is_told_without_a_manager() -> None:
    with open_notifier({}) as notifier:
        assert notifier is None
