"""Whatever comes in is loaded, or refused in lines that can be read: nothing else happens."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given, settings, strategies as st

from trio_services.config._file import decode
from trio_services.errors import ConfigError

from .cases import GOOD
from .conftest import loaded

FRAGMENTS = st.sampled_from(
    [
        *GOOD.splitlines(keepends=True),
        *"[]{}=\"',.#\n",
        "[[",
        "nan",
        "inf",
        "-1",
        "true",
        "1e999",
        '"""',
        "\\u0000",
        "0x",
        "9" * 5000,
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            "true",
            "-1",
            "0",
            "1.5",
            "nan",
            "-inf",
            '""',
            '"x"',
            "[]",
            "[1]",
            '["x"]',
            "{}",
            "{ a = 1 }",
            "1979-05-27",
            "07:32:00",
            "[" * 50,
        ]
    ),
    st.text(max_size=5),
)
KEYS = st.sampled_from(
    [
        "host",
        "host.name",
        "host.imports",
        "host.max_restarts",
        "host.max_restarts.per",
        "log",
        "log.levels",
        "log.levels.sort",
        "admin",
        "admin.bind",
        "queues",
        "queues.parcels",
        "queues.parcels.capacity",
        "services",
        "services.sort",
        "services.sort.use",
        "services.sort.options",
        "services.sort.options.batch",
        "services.sort.after",
        "services.sort.backoff.cap",
        "services.sort.breaker",
        "services.sort.breaker.give_up_after",
        "workers.deliver",
        "workers.deliver.queue",
        "workers.deliver.retry",
        "workers.deliver.retry.on",
        "schedules",
        "schedules.report",
        "schedules.report.every",
        "schedules.report.jitter",
        "nobody.knows",
    ]
)


def assert_loaded_or_refused(
    data: bytes, overrides: list[str], environment: dict[str, str]
) -> None:
    try:
        text = decode(data, Path("config.toml"))
        loaded(text, *overrides, **environment)
        return
    except ConfigError as error:
        lines = error.problems
    assert lines
    for line in lines:
        assert line.isprintable(), line
        assert line.startswith(("config.toml:", "--set ", "environment TRIO_SERVICES__")), line


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_loaded_or_refused(data: bytes) -> None:
    assert_loaded_or_refused(data, [], {})


@settings(deadline=None)
@given(st.lists(FRAGMENTS, max_size=30))
def test_any_scraps_of_toml_are_loaded_or_refused(scraps: list[str]) -> None:
    assert_loaded_or_refused("".join(scraps).encode(), [], {})


@settings(deadline=None)
@given(st.data())
def test_any_damage_to_a_good_file_is_loaded_or_refused(data: st.DataObject) -> None:
    text = GOOD
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = min(len(text), start + data.draw(st.integers(0, 20)))
        text = text[:start] + data.draw(FRAGMENTS) + text[stop:]

    assert_loaded_or_refused(text.encode(), [], {})


@settings(deadline=None)
@given(st.lists(st.tuples(KEYS, VALUES), max_size=6), st.lists(st.tuples(KEYS, VALUES), max_size=3))
@example([("services", "{}")], [("services.sort.use", "x")])
@example([("services.sort", "{ use = 1 }")], [])
@example([], [("services.sort.options", "1"), ("services.sort.options.batch", "1")])
def test_any_overrides_are_loaded_or_refused(
    arguments: list[tuple[str, str]], variables: list[tuple[str, str]]
) -> None:
    assert_loaded_or_refused(
        GOOD.encode(),
        [f"{key}={value}" for key, value in arguments],
        {f"TRIO_SERVICES__{key.upper().replace('.', '__')}": value for key, value in variables},
    )
