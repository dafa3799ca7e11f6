"""The unit of an application: its time-outs, its quoting, and what systemd says of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import write
from trio_services.cli import main
from trio_services.deploy import Unit

CODE = """\
import trio


async def tick():
    await trio.sleep_forever()
"""

CONFIG = """\
[host]
name = "clock"
stop_within = "21.5s"
imports = ["ticking"]

[services.first]
use = "ticking:tick"
start_within = "40s"

[services.second]
use = "ticking:tick"
after = ["first"]
start_within = "20s"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "my 100% clock"
    folder.mkdir()
    (folder / "ticking.py").write_text(CODE)
    write(folder / "clock.toml", CONFIG)
    return folder / "clock.toml"


def deployed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """The exit status of `deploy systemd`, and what it prints."""
    with pytest.raises(SystemExit) as caught:
        main(["deploy", "systemd", *arguments])
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def settings(unit: str) -> dict[str, str]:
    lines = [line for line in unit.splitlines() if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


def test_time_outs_agree_with_the_plan(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, unit, _ = deployed(capsys, str(config))

    assert status == 0
    said = settings(unit)
    assert said["TimeoutStartSec"] == "65"  # 40 + 20 + 5
    assert said["TimeoutStopSec"] == "29"  # 21.5 + 2 + 5, rounded up


def test_unit_is_notified_hardened_and_not_run_by_root(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, unit, _ = deployed(capsys, str(config))

    expected = {
        "Type": "notify",
        "KillMode": "mixed",
        "WatchdogSec": "30",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2",
        "DynamicUser": "yes",
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "CapabilityBoundingSet": "",
    }
    said = settings(unit)
    assert {key: said[key] for key in expected} == expected


def test_command_is_quoted_and_has_the_overrides(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    override = 'log.levels={ first = "debug" }'
    _, unit, _ = deployed(capsys, str(config), "--set", override)

    path = str(config).replace("%", "%%")
    words = f'"{path}" --set "log.levels={{ first = \\"debug\\" }}"'
    said = settings(unit)
    assert said["ExecStart"] == f"{sys.executable} -m trio_services run {words}"
    assert said["WorkingDirectory"] == str(config.parent).replace("%", "%%")


def test_dollar_is_one_in_commands_and_is_left_alone_in_paths() -> None:
    unit = Unit("a", ["/a$b"], Path("/c$d"), 1, 1, "me", [Path("/c$d"), Path("/e f")])

    assert "ExecStart=/a$$b\n" in str(unit)
    assert "WorkingDirectory=/c$d\n" in str(unit)
    assert 'ReadWritePaths=/c$d\nReadWritePaths="/e f"\n' in str(unit)


def test_what_writes_beside_its_file_needs_a_user(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bind = ["--set", "admin.bind=unix:admin.sock"]
    status, unit, err = deployed(capsys, str(config), *bind)
    assert (status, unit) == (2, "")
    assert f"it writes to {config.parent}: give the --user to whom that belongs" in err

    status, unit, _ = deployed(capsys, str(config), *bind, "--user", "clock")
    assert status == 0
    said = settings(unit)
    assert said["User"] == "clock"
    assert "DynamicUser" not in said
    assert said["ReadWritePaths"] == f'"{config.parent}"'.replace("%", "%%")


def test_user_cannot_forge_a_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, unit, err = deployed(capsys, str(config), "--user", "me\nUser=root")
    assert (status, unit) == (2, "")
    assert "is no user's name" in err


def test_bad_configuration_is_refused_with_its_problems(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(config, "[hots]")
    status, unit, err = deployed(capsys, str(config))
    assert (status, unit) == (2, "")
    assert "hots: unknown" in err


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed here")
def test_systemd_finds_nothing_wrong(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, text, _ = deployed(capsys, str(config), "--user", "root", "--writable", str(tmp_path))
    unit = tmp_path / "clock.service"
    unit.write_text(text)

    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=30)
    about_us = [line for line in done.stderr.splitlines() if "clock" in line]
    assert (done.returncode, about_us) == (0, []), done.stderr
