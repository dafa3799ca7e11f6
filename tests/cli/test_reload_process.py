"""Reload in a process of its own: real files, changed in every way; real signals."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.host.process import Program, running

from .conftest import write

CODE = """\
import attrs
import trio


@attrs.frozen
class Options:
    text: str = ""


async def speak(options: Options):
    print("speak", options.text, flush=True)
    if options.text == "bad":
        raise ValueError("bad text")
    await trio.sleep_forever()


async def stay():
    print("stay", flush=True)
    await trio.sleep_forever()
"""

CONFIG = """\
[host]
name = "talk"
imports = ["talking"]

[services.stay]
use = "talking:stay"

[services.speak]
use = "talking:speak"
options = { text = "one" }

[services.last]
use = "talking:stay"
"""


@pytest.fixture
def talk(tmp_path: Path) -> Generator[Program]:
    """The application, once it runs."""
    (tmp_path / "talking.py").write_text(CODE)
    write(tmp_path / "talk.toml", CONFIG)
    with started(tmp_path) as program:
        yield program


@contextmanager
def started(folder: Path, *arguments: str) -> Generator[Program]:
    """The application as a process, which does not outlive the block."""
    words = ["trio-services", "run", str(folder / "talk.toml"), *arguments]
    with running(folder, f"import sys\nsys.argv = {words!r}\n" + MAIN, prelude="") as program:
        yield program


MAIN = """\
from trio_services.cli import main
print("begins", flush=True)
main()
"""


def changed(text: str) -> str:
    return CONFIG.replace('"one"', f'"{text}"')


def wait_logged(program: Program, text: str, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while text not in program.err:
        assert time.monotonic() < until, f"no {text!r}; {program}"
        time.sleep(0.02)


def is_ready(program: Program) -> None:
    program.wait_for("speak one")
    wait_logged(program, "talk: ready")


def ends_well(program: Program, stays: int = 2) -> None:
    """What was not changed was never restarted, and the process stops as it should."""
    program.send(signal.SIGTERM)
    assert program.wait() == 0, program
    assert program.out.count("stay") == stays
    assert "Traceback" not in program.err.replace(
        "Traceback (most recent call last):\n      File", ""
    )


def in_place(path: Path) -> None:
    path.write_text(changed("two"))


def by_rename(path: Path) -> None:
    new = path.with_suffix(".new")
    write(new, changed("two"))
    new.rename(path)


def away_and_back(path: Path) -> None:
    path.unlink()
    time.sleep(0.3)
    write(path, changed("two"))


def slowly(path: Path) -> None:
    data = changed("two")
    with path.open("w") as file:
        for start in range(0, len(data), 20):
            file.write(data[start : start + 20])
            file.flush()
            time.sleep(0.1)


@pytest.mark.parametrize("way", [in_place, by_rename, away_and_back, slowly])
def test_change_is_applied_however_the_file_is_changed(
    tmp_path: Path, talk: Program, way: Callable[[Path], None]
) -> None:
    is_ready(talk)
    way(tmp_path / "talk.toml")

    wait_logged(talk, "configuration reloaded: restarted speak\n")
    assert "configuration unchanged" not in talk.err or way is away_and_back
    ends_well(talk)
    assert talk.out[-1] == "speak two"


def test_change_behind_a_link_is_applied_as_kubernetes_makes_it(tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(CODE)
    for version, text in (("1", CONFIG), ("2", changed("two"))):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "talk.toml", text)
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "talk.toml").symlink_to("..data/talk.toml")
    with started(tmp_path) as talk:
        is_ready(talk)
        (tmp_path / "..tmp").symlink_to("2")
        (tmp_path / "..tmp").rename(tmp_path / "..data")
        shutil.rmtree(tmp_path / "1")

        wait_logged(talk, "configuration reloaded: restarted speak\n")
        ends_well(talk)


def test_sighup_applies_the_file_and_a_wrong_one_changes_nothing(
    tmp_path: Path, talk: Program
) -> None:
    is_ready(talk)
    (tmp_path / "talk.toml").write_text(changed("two"))
    talk.send(signal.SIGHUP)
    talk.wait_for("speak two", 5)
    wait_logged(talk, "configuration reloaded")

    (tmp_path / "talk.toml").write_text(changed("three").replace("[host]", "[hots]"))
    talk.send(signal.SIGHUP)
    wait_logged(talk, "configuration unchanged: ")
    (line,) = [line for line in talk.err.splitlines() if "unchanged" in line and "hots" in line]
    assert line.endswith(f'{tmp_path}/talk.toml:hots: unknown key; did you mean "host"?')
    ends_well(talk)
    assert "speak three" not in talk.out


def test_service_that_fails_with_its_options_gets_the_old_ones_back(
    tmp_path: Path, talk: Program
) -> None:
    is_ready(talk)
    write(tmp_path / "talk.toml", changed("bad"))
    talk.send(signal.SIGHUP)

    wait_logged(talk, "configuration rolled back: talk/speak failed when it was started anew: ")
    ends_well(talk)
    assert talk.out.count("speak one") == 2


def test_file_that_was_torn_changes_nothing_and_is_told_once(tmp_path: Path, talk: Program) -> None:
    is_ready(talk)
    (tmp_path / "talk.toml").write_text(CONFIG[: CONFIG.index("[services.last]")])

    wait_logged(talk, "it is only the beginning of the configuration that is in force")
    time.sleep(1.5)
    assert talk.err.count("configuration unchanged") == 1
    assert "talk/last: stopping" not in talk.err
    (tmp_path / "talk.toml").write_text(CONFIG)
    wait_logged(talk, "configuration reloaded: no service is concerned")
    ends_well(talk)


def test_file_that_is_gone_changes_nothing_and_is_told_once(tmp_path: Path, talk: Program) -> None:
    is_ready(talk)
    (tmp_path / "talk.toml").unlink()

    wait_logged(talk, "talk.toml: there is no such file")
    time.sleep(1.5)
    assert talk.err.count("configuration unchanged") == 1
    ends_well(talk)


def test_log_level_changes_in_place(tmp_path: Path, talk: Program) -> None:
    is_ready(talk)
    write(tmp_path / "talk.toml", CONFIG + '[log]\nlevel = "warning"\n')
    talk.send(signal.SIGHUP)
    time.sleep(1)
    write(tmp_path / "talk.toml", changed("two") + '[log]\nlevel = "warning"\n')
    talk.send(signal.SIGHUP)
    talk.wait_for("speak two")
    ends_well(talk)

    assert "talk/speak: stopped" not in talk.err
    assert "talk: stopped" not in talk.err


def test_file_that_is_not_watched_is_applied_by_sighup_only(tmp_path: Path) -> None:
    (tmp_path / "talking.py").write_text(CODE)
    write(tmp_path / "talk.toml", CONFIG)
    with started(tmp_path, "--set", "host.watch=false") as talk:
        is_ready(talk)
        write(tmp_path / "talk.toml", changed("two"))
        time.sleep(2.5)
        assert "configuration" not in talk.err
        talk.send(signal.SIGHUP)
        talk.wait_for("speak two")
        ends_well(talk)


def test_sighup_that_comes_too_early_or_late_does_not_kill(tmp_path: Path, talk: Program) -> None:
    talk.wait_for("begins")
    is_ready(talk)
    for _ in range(20):
        talk.send(signal.SIGHUP)
    talk.send(signal.SIGTERM)
    for _ in range(20):
        talk.send(signal.SIGHUP)
    assert talk.wait() == 0


def test_application_that_is_watched_leaves_nothing_behind(tmp_path: Path, talk: Program) -> None:
    is_ready(talk)
    before = names(tmp_path)
    begun = talk.send(signal.SIGTERM)

    assert talk.wait() == 0
    assert time.monotonic() - begun < 2
    assert names(tmp_path) == before


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"__pycache__"}
