"""The command line: what it imports, what it prints, and how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from trio_services import __version__
from trio_services.cli import main

HEAVY = {"attr", "cattrs", "hypercorn", "loguru", "starlette", "trio"}


def exit_status(*arguments: str) -> object:
    """What the command exits with, in this process."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["version"],
        ["run", "--help"],
        ["check", "--help"],
        ["graph", "--help"],
        ["status", "--help"],
        ["config", "--help"],
        ["deploy", "--help"],
        ["deploy", "systemd", "--help"],
        ["probe", "--help"],
        ["config", "schema", "--help"],
        ["bogus"],
        [],
    ],
)
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys\n"
        "from trio_services.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "finally:\n"
        "    print('imported', *(name for name in sys.modules if '.' not in name))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    imported = set(result.stdout.splitlines()[-1].split())
    assert "click" in imported
    assert not imported & HEAVY


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("version") == 0
    assert capsys.readouterr().out == f"trio-services {__version__}\n"


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(option) == 0
    assert {"run", "check", "version"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "command", "culprit"),
    [
        ([], "trio-services", "command"),
        (["rum"], "trio-services", "'rum'"),
        (["run"], "trio-services run", "'CONFIG'"),
        (["check"], "trio-services check", "'CONFIG'"),
        (["run", "a.toml", "b.toml"], "trio-services run", "b.toml"),
        (["run", "a.toml", "--sett", "b=c"], "trio-services run", "--sett"),
        (["run", "a.toml", "--set"], "trio-services", "--set"),
        (["version", "5"], "trio-services version", "5"),
        (["graph"], "trio-services graph", "'CONFIG'"),
        (["graph", "a.toml", "--format", "svg"], "trio-services graph", "'svg'"),
        (["config"], "trio-services config", "command"),
        (["config", "shema"], "trio-services config", "'shema'"),
        (["config", "schema", "5"], "trio-services config schema", "5"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    arguments: list[str], command: str, culprit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*arguments) == 2

    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"{command}: ")
    assert line.endswith(f"; see {command} --help")
    assert culprit in line
    assert printed.out == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nowhere.toml"], "nowhere.toml: there is no such file"),
        (
            ["config.toml", "--set", "log.level"],
            '--set "log.level": expected KEY=VALUE, such as log.level=debug',
        ),
        (
            ["config.toml", "--set", "workers.work.count=-1"],
            "--set workers.work.count: -1 is too small; expected at least 1",
        ),
        (
            ["config.toml", "--set", "log.format=jsn"],
            '--set log.format: "jsn" is not one of "console", "json"; did you mean "json"?',
        ),
    ],
)
@pytest.mark.parametrize("command", ["run", "check", "graph"])
def test_bad_file_or_override_is_one_line_and_status_2(
    folder: Path,
    command: str,
    arguments: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status(command, *arguments) == 2

    printed = capsys.readouterr()
    assert printed.err == f"{line}\n"
    assert printed.out == ""


def test_argument_with_a_line_break_is_still_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    exit_status("run\nrun\x1b[2J")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_check_prints_what_there_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("check", "config.toml", "--set", "admin.bind=127.0.0.1:0") == 0
    assert (
        capsys.readouterr().out
        == """\
config.toml is sound: clock
  service   tick    clockwork:tick
  workers   work    clockwork:handle on jobs, 3 at a time, after tick
  schedule  report  clockwork:report every 90s
  queue     jobs    holds 5 items, then a put waits
  admin             127.0.0.1:0
  stop              10s at worst, of 10s
"""
    )


def test_check_prints_what_there_is_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("check", "--json", "config.toml") == 0
    assert json.loads(capsys.readouterr().out) == {
        "ok": True,
        "file": "config.toml",
        "name": "clock",
        "services": [{"name": "tick", "use": "clockwork:tick", "after": []}],
        "workers": [
            {
                "name": "work",
                "queue": "jobs",
                "handler": "clockwork:handle",
                "count": 3,
                "after": ["tick"],
            }
        ],
        "schedules": [
            {
                "name": "report",
                "call": "clockwork:report",
                "every": 90.0,
                "cron": None,
                "timezone": None,
                "after": [],
            }
        ],
        "queues": [{"name": "jobs", "capacity": 5, "when_full": "wait"}],
        "alerts": [],
        "admin": None,
        "database": None,
        "stop": {"worst": 10.0, "within": 10.0},
    }


def test_check_explains_every_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("check", "config.toml", "--explain", "--set", "log.level=debug") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "config.toml is sound: clock"
    told = {line.partition("#")[0].strip(): line.partition("#")[2].strip() for line in lines}
    assert told['host.name = "clock"'] == "config.toml:2"
    assert told['log.level = "debug"'] == "--set log.level"
    assert told['host.max_restarts.per = "1m"'] == "default"


def test_check_explains_every_value_as_json(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("check", "config.toml", "--explain", "--json") == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    assert {"key": "queues.jobs.capacity", "value": 5, "origin": "config.toml:7"} in printed[
        "values"
    ]


def test_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("config", "schema") == 0
    assert json.loads(capsys.readouterr().out)["properties"].keys() >= {"host", "services"}


def test_check_takes_overrides_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIO_SERVICES__QUEUES__JOBS__CAPACITY", "0")

    assert exit_status("check", "config.toml") == 2
    assert capsys.readouterr().err == (
        "environment TRIO_SERVICES__QUEUES__JOBS__CAPACITY: 0 is too small; expected at least 1\n"
    )


@pytest.mark.parametrize(
    ("bind", "problem"),
    [
        ("127.0.0.1:70000", "port 70000 is not in 0 to 65535"),
        (f"unix:{'s' * 107}", "path: a unix socket's path has at most 107 bytes"),
    ],
)
def test_check_refuses_an_address_that_cannot_be_listened_on(
    folder: Path, bind: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("check", "config.toml", "--set", f"admin.bind={bind}") == 2
    assert capsys.readouterr().err == f"--set admin.bind: {problem}\n"
