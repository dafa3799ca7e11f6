"""The tables say of each key what it is, and agree with the values that they become."""

from __future__ import annotations

from typing import Any, get_args

import attrs
import pytest

from trio_services import (
    Backoff,
    Breaker,
    Limit,
    Retry,
    Schedule,
    Supervisor,
    Workers,
    WorkQueue,
)
from trio_services.config import Seconds, _policies, _schema
from trio_services.host import HostSettings
from trio_services.telemetry import LEVELS, LogSettings

TABLES: list[Any] = [
    table
    for name, table in (vars(_schema) | vars(_policies)).items()
    if name.endswith("Table") and attrs.has(table)
]
FIELDS = [
    pytest.param(field, id=f"{table.__name__}.{field.name}")
    for table in [*TABLES, _schema.Tables]
    for field in attrs.fields(attrs.resolve_types(table))
]


@pytest.mark.parametrize("field", FIELDS)
def test_every_key_has_a_sentence_about_it_and_a_unit_if_it_is_a_number(
    field: attrs.Attribute[Any],
) -> None:
    sentence, unit = field.metadata["help"], field.metadata["unit"]
    kinds = {field.type, *get_args(field.type)}

    assert sentence[0].isupper()
    assert sentence.endswith(".")
    assert bool(unit) == bool(kinds & {int, float, Seconds})
    if Seconds in kinds:
        assert unit == "seconds"


@pytest.mark.parametrize(
    ("table", "value"),
    [
        (_policies.BackoffTable(), Backoff()),
        (_policies.BreakerTable(), Breaker()),
        (_schema.LogTable(), LogSettings()),
        (_policies.LimitTable(), Supervisor("x", []).max_restarts),
        (_policies.LimitTable(), Limit(5, per=60.0)),
        (_schema.QueueTable(), WorkQueue[str]("x")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_defaults_of_a_table_are_those_of_the_value(table: Any, value: object) -> None:
    for key, default in attrs.asdict(table).items():
        assert getattr(value, key) == default


@pytest.mark.parametrize(
    ("table", "key", "kind"),
    [
        (_policies.RetryTable, "attempts", Retry),
        (_schema.WorkersTable, "count", Workers),
        (_schema.WorkersTable, "timeout", Workers),
        (_schema.WorkersTable, "retry", Workers),
        (_schema.ScheduleTable, "start", Schedule),
        (_schema.ScheduleTable, "jitter", Schedule),
        (_schema.ScheduleTable, "timeout", Schedule),
        (_schema.HostTable, "stop_within", HostSettings),
    ],
)
def test_default_of_a_key_is_that_of_the_value(table: Any, key: str, kind: Any) -> None:
    assert attrs.fields_dict(table)[key].default == attrs.fields_dict(kind)[key].default


def test_levels_are_those_of_the_logs() -> None:
    assert get_args(_schema.Level) == LEVELS
