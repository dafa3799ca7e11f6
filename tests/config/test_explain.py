"""Every value is told with where it came from, and no secret is."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import pytest

from trio_services.config import build, explain, load

from .cases import GOOD, service
from .conftest import write

TEXT = "correct horse battery staple"


@pytest.fixture
def explained(folder: object) -> Any:
    def make(
        text: str, *overrides: str, environment: Mapping[str, str] | None = None
    ) -> dict[str, tuple[object, str]]:
        write(text)
        configuration = load("config.toml", environment=environment or {}, overrides=overrides)
        values = explain(configuration, build(configuration))
        assert TEXT not in repr(values)
        for value in values:
            if "[" not in value.key:  # of a value in an array
                tomllib.loads(value.line)
        return {value.key: (value.value, value.origin) for value in values}

    return make


def test_origin_is_the_line_of_the_file(explained: Any) -> None:
    values = explained(GOOD)

    assert values["host.name"] == ("depot", "config.toml:2")
    assert values["host.imports"] == (["depot"], "config.toml:3")
    assert values["services.sort.options.batch"] == (5, "config.toml:10")
    assert values["schedules.report.every"] == ("5m", "config.toml:19")
    assert values["services.sort.use"] == ("depot.code:Sort", "config.toml:9")


def test_origin_is_the_override(explained: Any) -> None:
    values = explained(
        GOOD,
        "log.level=debug",
        "services.sort.options={ folder = 'in', label = 'x' }",
        environment={"TRIO_SERVICES__WORKERS__DELIVER__COUNT": "7"},
    )

    assert values["log.level"] == ("debug", "--set log.level")
    assert values["services.sort.options.label"] == ("x", "--set services.sort.options")
    assert values["services.sort.options.batch"] == (10, "default")
    assert values["workers.deliver.count"] == (
        7,
        "environment TRIO_SERVICES__WORKERS__DELIVER__COUNT",
    )


def test_what_nobody_says_is_a_default_also_of_the_supervisor(explained: Any) -> None:
    values = explained(GOOD)

    assert values["host.stop_within"] == ("30s", "default")
    assert values["services.sort.restart"] == ("on_failure", "default")
    assert values["services.sort.stop_within"] == ("10s", "default")
    assert values["services.sort.backoff.cap"] == ("1m", "default")
    assert values["services.sort.options.pause"] == ("1s", "default")
    assert values["services.sort.options.size"] == ("small", "default")
    assert "services.sort.breaker" not in values
    assert not any(key.startswith("admin") for key in values)


def test_secret_is_masked_and_its_place_is_told(explained: Any) -> None:
    token = '{ env = "TOKEN" }'
    more = f"spare = [{token}], by_name = {{ a = {token} }}, maybe = {token}, url = {token}"
    text = service(f'use = "depot.code:log_in"\noptions = {{ token = {token}, {more} }}')

    values = explained(text, environment={"TOKEN": TEXT})

    where = "config.toml:23 (environment TOKEN)"
    for key in ("token", "spare[0]", "by_name.a", "maybe", "url"):
        assert values[f"services.extra.options.{key}"] == ("***", where)


def test_secret_that_a_variable_overrides_is_masked_too(explained: Any) -> None:
    text = service('use = "depot.code:log_in"\noptions = { token = { file = "token" } }')
    variable = "TRIO_SERVICES__SERVICES__EXTRA__OPTIONS__TOKEN"

    values = explained(text, environment={variable: TEXT})

    assert values["services.extra.options.token"] == ("***", f"environment {variable}")


@pytest.mark.parametrize(
    ("url", "shown", "origin"),
    [
        ('"postgresql://host/depot"', "postgresql://host/depot", "config.toml:22"),
        ('{ env = "DEPOT" }', "***", "config.toml:22 (environment DEPOT)"),
    ],
)
def test_url_of_a_database_is_masked_where_it_is_a_secret(
    explained: Any, url: str, shown: str, origin: str
) -> None:
    environment = {"DEPOT": f"postgresql://ann:{TEXT}@host/depot"}

    values = explained(f"{GOOD}\n[database]\nurl = {url}\n", environment=environment)

    assert values["database.url"] == (shown, origin)


def test_options_of_several_pieces_of_code_are_told_together(explained: Any) -> None:
    text = GOOD.replace(
        'handler = "depot.code:deliver"',
        'handler = "depot.code:deliver_with"\non_dead = "depot.code:bury_with"\n'
        'options = { pause = "1s" }',
    )

    values = explained(text)

    assert values["workers.deliver.options.pause"] == ("1s", "config.toml:16")
    assert values["workers.deliver.options.to"] == ("office", "default")
