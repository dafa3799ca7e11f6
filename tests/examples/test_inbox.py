"""The inbox example as an operator meets it: real files, a real process, real signals."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "inbox"
ORDERS = 4099  # of the 4,101 lines and files that are bundled, one line and one file are none
DEAD = 2


class App:
    """A copy of the example in a folder of its own, and the processes that run it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        log = self.folder / f"log-{len(self._processes)}"
        command = [
            sys.executable,
            "-u",
            "-m",
            "trio_services",
            "run",
            str(self.folder / "config.toml"),
        ]
        with log.open("w") as output:
            process = subprocess.Popen(
                [*command, "--set", "admin.bind=127.0.0.1:0"],
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def log(self) -> str:
        return (self.folder / f"log-{len(self._processes) - 1}").read_text()

    def wait_for(self, pattern: str, within: float = 20.0) -> re.Match[str]:
        deadline = time.monotonic() + within
        while not (found := re.search(pattern, self.log())):
            assert self._processes[-1].poll() is None, self.log()
            assert time.monotonic() < deadline, f"no {pattern!r} in\n{self.log()}"
            time.sleep(0.02)
        return found

    def wait_for_files(self, count: int) -> None:
        self.wait_for(rf"totals: \d+ orders of {count} files")

    def wait_for_orders(self, count: int) -> None:
        deadline = time.monotonic() + 20
        while len(self.orders()) < count:
            assert self._processes[-1].poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.01)

    def orders(self) -> list[str]:
        path = self.folder / "var" / "ledger.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path)) as database:
            if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
                return []
            return [order for (order,) in database.execute("SELECT id FROM orders")]

    def dead_letters(self) -> list[tuple[str, int]]:
        path = self.folder / "var" / "dead-letters.jsonl"
        letters = [json.loads(line) for line in path.read_text().splitlines()]
        return [(letter["file"], letter["line"]) for letter in letters]


@contextmanager
def copied(tmp_path: Path) -> Generator[App, None, None]:
    """The example in a folder of its own; its processes end with the block."""
    folder = tmp_path / "inbox"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("var", "__pycache__"))
    folder.chmod(0o755)
    (folder / "config.toml").chmod(0o644)
    app = App(folder)
    try:
        yield app
    finally:
        app.end()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with copied(tmp_path) as app:
        yield app


def bundled_orders() -> set[str]:
    """The ids of all good lines of the bundled files, read without the example's own code."""
    found: set[str] = set()
    for path in (EXAMPLE / "drop").glob("*.csv"):
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for line in csv.DictReader(content.decode("utf-8-sig").splitlines()):
            if "€" not in line["amount"]:
                found.add(line["order_id"])
    return found


def test_every_bundled_file_is_processed_and_a_stop_accounts_for_every_row(app: App) -> None:
    process = app.start()
    app.wait_for_files(4)

    process.send_signal(signal.SIGTERM)

    assert process.wait(20) == 0
    assert (
        f"queue rows: {ORDERS + DEAD} accepted = {ORDERS} done + {DEAD} dead + 0 left" in app.log()
    )
    assert set(app.orders()) == bundled_orders()
    assert len(app.orders()) == ORDERS
    assert sorted(app.dead_letters()) == [
        ("orders-2026-11-03.csv", 619),
        ("orders-2026-11-05.csv", 0),
    ]


def test_a_stop_in_the_middle_counts_what_is_left_and_a_restart_completes_it(app: App) -> None:
    process = app.start()
    app.wait_for_orders(200)

    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0

    books = re.search(r"rows: (\d+) accepted = (\d+) done \+ (\d+) dead \+ (\d+) left", app.log())
    assert books, app.log()
    accepted, done, dead, left = map(int, books.groups())
    assert 0 < done < ORDERS, "the stop came too early or too late to show anything"
    assert accepted == done + dead + left
    assert len(app.orders()) == done
    app.start()
    app.wait_for_files(4)
    assert set(app.orders()) == bundled_orders()


def test_kill_9_at_any_moment_loses_nothing_and_doubles_nothing(app: App) -> None:
    for count in (1, 700, 2600, 3600):  # in the first file, again, in the second, in the third
        process = app.start()
        app.wait_for_orders(count)
        process.kill()
        process.wait()

    app.start()
    app.wait_for_files(4)

    assert sorted(app.orders()) == sorted(bundled_orders())
    assert sorted(app.dead_letters()) == [
        ("orders-2026-11-03.csv", 619),
        ("orders-2026-11-05.csv", 0),
    ]


def test_a_torn_dead_letter_is_written_again_whole(app: App) -> None:
    (app.folder / "var").mkdir()
    (app.folder / "var" / "dead-letters.jsonl").write_text('{"file": "orders-2026-11-03.csv", "di')

    app.start()
    app.wait_for_files(4)

    assert sorted(app.dead_letters()) == [
        ("orders-2026-11-03.csv", 619),
        ("orders-2026-11-05.csv", 0),
    ]


def test_a_file_that_is_dropped_later_is_imported_once(app: App) -> None:
    shutil.rmtree(app.folder / "drop")
    app.start()
    app.wait_for("inbox: ready")

    header = "order_id,customer,amount,currency,placed_on\n"
    line = "L-1,Late,1.00,EUR,2026-11-06\n"
    (app.folder / "drop" / "late.csv").write_text(header + line)
    app.wait_for_files(1)
    (app.folder / "drop" / "again.csv").write_text(header + line)
    app.wait_for_files(2)

    assert app.orders() == ["L-1"]


def test_probes_answer_while_it_runs_and_it_is_ready_only_when_all_services_are(app: App) -> None:
    app.start()
    port = app.wait_for(r"127\.0\.0\.1:(\d+)")[1]
    app.wait_for("inbox: ready")

    for path in ("live", "ready"):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            assert answer.status == 200


def test_a_broken_line_costs_only_itself(app: App) -> None:
    shutil.rmtree(app.folder / "drop")
    app.start()
    app.wait_for("inbox: ready")

    lines = [
        "order_id,customer,amount,currency,placed_on",
        "A-1,Ada,1.00,EUR,2026-11-06",
        'A-2,"Grace"x,1.00,EUR,2026-11-06',
        "",
        "A-3,Chen,1.00,EUR,2026-11-06",
        "",
    ]
    (app.folder / "drop" / "broken.csv").write_text("\n".join(lines))
    app.wait_for_files(1)

    assert app.orders() == ["A-1", "A-3"]
    assert app.dead_letters() == [("broken.csv", 3)]
