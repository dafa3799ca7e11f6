"""The tables `[alerts.NAME]`: addresses come from where they are, and are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_services.config import build, explain, load

from .cases import GOOD
from .conftest import Build, Refused, write

URL = "https://hooks.example/s3cret"


def alerts(url: str, on: str = '["job_dead"]', name: str = "ops") -> str:
    return f"{GOOD}\n[alerts.{name}]\nurl = {url}\non = {on}\n"


def test_application_without_alerts_has_no_companion_for_them(built: Build) -> None:
    assert built(GOOD).alerts is None


@pytest.mark.parametrize("url", [f'"{URL}"', '{ env = "ALERT_URL" }', '{ file = "url" }'])
def test_address_is_there_or_elsewhere_and_never_shown(built: Build, url: str) -> None:
    write(alerts(url))
    Path("url").write_text(f"{URL}\n", encoding="utf-8")

    application = built(alerts(url), environment={"ALERT_URL": URL})

    assert application.alerts is not None
    configuration = load("config.toml", environment={"ALERT_URL": URL})
    shown = explain(configuration, build(configuration))
    assert ("alerts.ops.url", "***") in [(value.key, value.value) for value in shown]
    assert "s3cret" not in f"{application!r}{configuration!r}{shown!r}"


@pytest.mark.parametrize(
    ("url", "on", "line"),
    [
        ('{ env = "NOT_THERE" }', '["job_dead"]', "url: the environment has no NOT_THERE; set it"),
        ('{ env = "BAD" }', '["job_dead"]', "url: it is a file, which nobody is told of; "),
        ('"file:///s3cret"', '["job_dead"]', "url: it is a file, which nobody is told of; "),
        (r'"https://host/s3cret\r\nX: y"', '["job_dead"]', "url: it is not an address: it holds"),
        ('"s3cret"', '["job_dead"]', "url: it is not an address; expected text like"),
        (f'"{URL}"', '["job_deda"]', 'on[0]: "job_deda" is not one of '),
        (f'"{URL}"', "[]", "on: it is empty; expected at least one"),
    ],
)
def test_wrong_alerts_are_refused_and_addresses_not_shown(
    refused: Refused, url: str, on: str, line: str
) -> None:
    (problem,) = refused(alerts(url, on), environment={"BAD": "file:///s3cret"})
    assert problem.startswith(f"config.toml:alerts.ops.{line}")
    assert "s3cret" not in problem


def test_all_wrong_addresses_are_told_at_once(refused: Refused) -> None:
    text = alerts('{ env = "A" }') + alerts('{ env = "B" }', name="dev").removeprefix(GOOD)
    assert refused(text) == [
        "config.toml:alerts.ops.url: the environment has no A; set it",
        "config.toml:alerts.dev.url: the environment has no B; set it",
    ]


def test_service_cannot_have_the_name_of_that_which_tells(refused: Refused) -> None:
    text = GOOD.replace("[services.sort]", "[services.alerts]")
    assert refused(text) == [
        'config.toml:services.alerts: the name "alerts" is reserved; choose another'
    ]


def test_last_word_counts_towards_the_time_of_a_stop(built: Build, refused: Refused) -> None:
    tight = ('[host]\nname = "depot"', '[host]\nname = "depot"\nstop_within = "10s"')
    built(GOOD.replace(*tight))
    (problem,) = refused(alerts(f'"{URL}"').replace(*tight))
    assert problem.startswith("config.toml:host.stop_within: ")
