"""Every configuration that is wrong is refused, in the lines that its case names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trio_services.admin import Bind
from trio_services.cli import main
from trio_services.config import build, load
from trio_services.errors import ConfigError

from .cases import CASES, GOOD, Case
from .conftest import Refused, write

each_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def lines_of(case: Case, folder: Path) -> list[str]:
    return [line.replace("{folder}", str(folder)) for line in case.lines]


@each_case
def test_bad_configuration_is_refused_in_these_lines(case: Case, folder: Path) -> None:
    write(case.text)

    with pytest.raises(ConfigError) as caught:
        build(load("config.toml", environment={}, checks={"admin.bind": Bind.parse}))

    assert list(caught.value.problems) == lines_of(case, folder)


@each_case
def test_check_prints_these_lines_and_exits_with_status_2(
    case: Case, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(case.text)

    with pytest.raises(SystemExit) as caught:
        main(["check", "config.toml"])

    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.err.splitlines() == lines_of(case, folder)
    assert printed.out == ""


def test_check_prints_the_lines_as_json_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(GOOD.replace("count = 2", "count = 0"))

    with pytest.raises(SystemExit) as caught:
        main(["check", "--json", "config.toml"])

    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert json.loads(printed.out) == {"ok": False, "problems": printed.err.splitlines()}


def test_all_that_is_wrong_in_the_tables_is_told_at_once(refused: Refused) -> None:
    text = """
        [host]
        imports = ["depot"]
        stop_within = "soon"
        [queues.Parcels]
        [services.sort]
        use = "os:system"
        restart = "allways"
        after = ["deliver"]
        [workers.deliver]
        handler = "depot.code:deliver"
        queue = "parcels"
        after = ["sort", "somebody"]
        count = 0
        [schedules.sort]
        every = 0
    """

    lines = refused(text, "log.level=loud", "nonsense", environment={"TRIO_SERVICES__A": "1"})

    assert [line.split(": ")[0] for line in lines] == [
        '--set "nonsense"',
        "config.toml:host.stop_within",
        "config.toml:services.sort.restart",
        "config.toml:workers.deliver.count",
        "config.toml:schedules.sort.every",
        "config.toml:schedules.sort.call",
        "environment TRIO_SERVICES__A",
        "--set log.level",
        "config.toml:queues.Parcels",
        "config.toml:schedules.sort",
        "config.toml:services.sort.use",
        "config.toml:workers.deliver.after[1]",
        "config.toml:services.sort.after",
        "config.toml:workers.deliver.queue",
    ]


def test_all_that_is_wrong_with_the_code_and_the_plan_is_told_at_once(refused: Refused) -> None:
    lines = refused(
        GOOD,
        "services.sort.use=depot.code:Sorter",
        "services.sort.stop_within=1h",
        "workers.deliver.handler=depot.code:van",
        "workers.deliver.retry.on=depot.code:Sort",
        "schedules.report.options={ to = 1 }",
    )

    assert [line.split(": ")[0] for line in lines] == [
        "--set services.sort.use",
        "--set workers.deliver.handler",
        "--set workers.deliver.retry.on",
        "--set schedules.report.options",
        "config.toml:host.stop_within",
    ]


def test_no_message_shows_more_than_the_beginning_of_a_value(refused: Refused) -> None:
    (line,) = refused(GOOD.replace("count = 2", f'count = "{"s" * 10_000}"'))

    assert len(line) < 200


def test_a_message_holds_no_control_characters(refused: Refused) -> None:
    (line,) = refused(GOOD.replace("count = 2", r'count = "\u001b[2J\u009b\u2028\n"'))

    assert line == r'config.toml:workers.deliver.count: "\x1b[2J\x9b\u2028\n" is not a whole number'


def test_a_module_that_fails_is_told_with_its_place(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "bad.py").write_text("import os\n\n{}['parcels']\n")

    (line,) = refused(GOOD, "services.sort.use=depot.bad:Sort")

    assert line == (
        "--set services.sort.use: importing depot.bad failed: "
        f"KeyError: 'parcels' ({folder}/depot/bad.py:3)"
    )


def test_a_module_that_is_no_python_is_told_with_its_place(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "bad.py").write_text("import os\n\nclass\n")

    (line,) = refused(GOOD, "services.sort.use=depot.bad:Sort")

    assert line == (
        "--set services.sort.use: importing depot.bad failed: "
        f"SyntaxError: invalid syntax ({folder}/depot/bad.py:3)"
    )


def test_a_module_that_needs_what_is_missing_is_not_missing_itself(
    refused: Refused, folder: Path
) -> None:
    (folder / "depot" / "bad.py").write_text("import depot.vans\n")

    (line,) = refused(GOOD, "services.sort.use=depot.bad:Sort")

    assert line == (
        "--set services.sort.use: importing depot.bad failed: "
        f"ModuleNotFoundError: No module named 'depot.vans' ({folder}/depot/bad.py:1)"
    )


def test_a_module_that_ends_the_process_does_not(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "bad.py").write_text("raise SystemExit(0)\n")

    (line,) = refused(GOOD, "services.sort.use=depot.bad:Sort")

    assert line == (
        "--set services.sort.use: importing depot.bad failed: "
        f"SystemExit: 0 ({folder}/depot/bad.py:1)"
    )


def test_a_module_that_fails_is_imported_once(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "bad.py").write_text("import os; os.mkdir('imported'); raise OSError\n")

    lines = refused(GOOD, "services.sort.use=depot.bad:A", "schedules.report.call=depot.bad:b")

    assert [line.split(": ", 1)[1] for line in lines] == [
        f"importing depot.bad failed: OSError ({folder}/depot/bad.py:1)"
    ] * 2
