"""The environment and `--set` over the file: what wins, what is read as what, who is to blame."""

from __future__ import annotations

import operator
from typing import Any

import pytest

from trio_services.errors import ConfigError

from .cases import GOOD
from .conftest import Build, Refused, loaded


def problems(text: str, *overrides: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, *overrides, **environment)
    return list(caught.value.problems)


# -- precedence ------------------------------------------------------------------------------


def test_environment_wins_over_the_file_and_set_over_both() -> None:
    variable = {"TRIO_SERVICES__WORKERS__DELIVER__COUNT": "3"}

    assert loaded().tables.workers["deliver"].count == 2
    assert loaded(GOOD, **variable).tables.workers["deliver"].count == 3
    assert loaded(GOOD, "workers.deliver.count=4", **variable).tables.workers["deliver"].count == 4


def test_last_set_of_a_key_wins() -> None:
    assert loaded(GOOD, "log.level=debug", "log.level=error").tables.log.level == "error"


def test_override_adds_a_key_and_a_table_that_the_file_does_not_have() -> None:
    tables = loaded(
        GOOD, "services.sort.backoff.cap=9", TRIO_SERVICES__ADMIN__BIND="[::1]:0"
    ).tables

    assert tables.services["sort"].backoff is not None
    assert tables.services["sort"].backoff.cap == 9
    assert tables.admin is not None
    assert tables.admin.bind == "[::1]:0"


def test_override_of_a_table_replaces_it_and_one_of_its_keys_adds_to_that() -> None:
    tables = loaded(
        GOOD,
        "services.sort.options.b=2",
        TRIO_SERVICES__SERVICES__SORT__OPTIONS="{ a = 1, b = 1 }",
        TRIO_SERVICES__SERVICES__SORT__OPTIONS__C="3",
    ).tables

    assert sorted(tables.services["sort"].options or {}) == ["a", "b", "c"]


def test_environment_is_read_without_regard_to_case() -> None:
    assert loaded(GOOD, trio_services__Log__LEVEL="debug").tables.log.level == "debug"


def test_underscore_in_the_environment_also_means_dash_and_dot() -> None:
    text = GOOD.replace("services.sort", 'services."sort-of.things"')

    tables = loaded(text, TRIO_SERVICES__SERVICES__SORT_OF_THINGS__STOP_WITHIN="1").tables

    assert tables.services["sort-of.things"].stop_within == 1


def test_name_with_a_dot_is_quoted_in_set() -> None:
    text = GOOD.replace("services.sort", 'services."sort.all"')

    tables = loaded(text, 'services."sort.all".stop_within=1').tables

    assert tables.services["sort.all"].stop_within == 1


def test_variables_of_others_are_left_alone() -> None:
    loaded(GOOD, HOME="/", TRIO_SERVICES="1", TRIO_SERVICES_LOG="1", XTRIO_SERVICES__A="1")


# -- reading ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("5", "5"),
        ("true", "true"),
        ("", ""),
        ("plain words", "plain words"),
        ('"5"', "5"),
        ("'quoted'", "quoted"),
        ("[1, 2]", "[1, 2]"),
        ("{ a = 1 }", "{ a = 1 }"),
        ("1 # one", "1 # one"),
        ("1\nother = 2", "1\nother = 2"),
        ("2026-11-02", "2026-11-02"),
        ("a=b", "a=b"),
        ("[" * 10_000, "[" * 10_000),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_what_is_given_for_a_text_is_that_text(text: str, meant: str) -> None:
    for tables in (
        loaded(GOOD, f"admin.bind={text}").tables,
        loaded(GOOD, TRIO_SERVICES__ADMIN__BIND=text).tables,
    ):
        assert tables.admin is not None
        assert tables.admin.bind == meant


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("batch=5", "batch", 5),
        ("batch=0x10", "batch", 16),
        ("label=5", "label", "5"),
        ("label='5'", "label", "5"),
        ("ratio=1", "ratio", 1.0),
        ("ratio=1e-3", "ratio", 0.001),
        ("pause=1m", "pause", 60.0),
        ("pause=5", "pause", 5.0),
        ("size=large", "size.value", "large"),
        ("mode=thorough", "mode", "thorough"),
        ("either=5", "either", 5),
        ("either='5'", "either", "5"),
        ("either=five", "either", "five"),
        ("anything=[1, {a = 2}]", "anything", [1, {"a": 2}]),
        ("anything.deep.key=5", "anything", {"deep": {"key": 5}}),
        ('tags=["a", "b"]', "tags", ("a", "b")),
        ("limits={ a = 1 }", "limits", {"a": 1}),
        ("limits.a=7", "limits", {"a": 7}),
        ("spare=7", "spare.name", "7"),
    ],
)
def test_set_gives_an_option_what_its_type_makes_of_the_text(
    built: Build, option: str, field: str, value: object
) -> None:
    application = built(GOOD, f"services.sort.options.{option}")

    service: Any = application.tree.children[0].service
    found: object = operator.attrgetter(f"options.{field}")(service())
    assert found == value
    assert type(found) is type(value)


# -- provenance ------------------------------------------------------------------------------


def test_problem_points_to_the_variable_or_argument_that_it_came_from() -> None:
    assert problems(GOOD, "workers.deliver.count=none") == [
        '--set workers.deliver.count: "none" is not a whole number'
    ]
    assert problems(GOOD, TRIO_SERVICES__WORKERS__DELIVER__COUNT="none") == [
        'environment TRIO_SERVICES__WORKERS__DELIVER__COUNT: "none" is not a whole number'
    ]


def test_problem_in_an_overridden_table_names_the_key_in_it() -> None:
    assert problems(GOOD, "host.max_restarts={ count = 1, per = 0 }") == [
        "--set host.max_restarts:per: 0 is too small; expected more than 0"
    ]
    assert problems(GOOD, TRIO_SERVICES__SERVICES__SORT__AFTER='["deliver", "srot"]') == [
        "environment TRIO_SERVICES__SERVICES__SORT__AFTER[1]: "
        'there is no service, workers or schedule "srot"; did you mean "sort"?'
    ]


def test_problem_of_a_key_that_was_overridden_twice_points_to_the_winner() -> None:
    assert problems(GOOD, "log={ level = 'loud' }", TRIO_SERVICES__LOG__LEVEL="info") == [
        '--set log:level: "loud" is not one of "critical", "debug", "error", "info", "success", '
        '"trace", "warning"'
    ]


def test_option_from_the_environment_is_told_as_such(refused: Refused) -> None:
    variable = "TRIO_SERVICES__SERVICES__SORT__OPTIONS__BATCH"

    assert refused(GOOD, environment={variable: "0"}) == [
        f"environment {variable}: 'batch' must be >= 1: 0"
    ]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("log.level", '--set "log.level": expected KEY=VALUE, such as log.level=debug'),
        ("=debug", '--set "=debug": expected KEY=VALUE, such as log.level=debug'),
        ("log..level=x", '--set "log..level=x": expected KEY=VALUE, such as log.level=debug'),
        ("", '--set "": expected KEY=VALUE, such as log.level=debug'),
        ("a b=c", '--set "a b=c": expected KEY=VALUE, such as log.level=debug'),
        ("a.b\nc=1", r'--set "a.b\nc=1": expected KEY=VALUE, such as log.level=debug'),
        (
            "log.level=\udcff",
            r'--set "log.level=\udcff": expected KEY=VALUE, such as log.level=debug',
        ),
        (
            "services.srot.use=a",
            "--set services.srot.use: there is no services.srot in the file to change; "
            'did you mean "sort"?',
        ),
        ("queues.new={}", "--set queues.new: there is no queues.new in the file to change"),
        ("host.name.first=a", "--set host.name.first: host.name is not a table"),
        ("host.imports.0=a", "--set host.imports.0: host.imports is not a table"),
    ],
)
def test_argument_that_changes_nothing_is_told(argument: str, line: str) -> None:
    assert problems(GOOD, argument) == [line]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "TRIO_SERVICES__",
            "1",
            "expected TRIO_SERVICES__TABLE__KEY, such as TRIO_SERVICES__LOG__LEVEL",
        ),
        (
            "TRIO_SERVICES__LOG____LEVEL",
            "1",
            "expected TRIO_SERVICES__TABLE__KEY, such as TRIO_SERVICES__LOG__LEVEL",
        ),
        ("TRIO_SERVICES__LOG__LEVEL", "\udcff", "its value is not UTF-8 text"),
        (
            "TRIO_SERVICES__SERVICES__SROT__USE",
            "1",
            'there is no services.srot in the file to change; did you mean "sort"?',
        ),
        ("TRIO_SERVICES__LOGS", "1", 'unknown key; did you mean "log"?'),
    ],
)
def test_variable_that_changes_nothing_is_told(name: str, text: str, problem: str) -> None:
    assert problems(GOOD, **{name: text}) == [f"environment {name}: {problem}"]


def test_key_that_is_set_by_two_variables_is_told() -> None:
    lines = problems(GOOD, TRIO_SERVICES__LOG__LEVEL="info", trio_services__log__level="debug")

    assert lines == [
        "environment trio_services__log__level: "
        "the environment TRIO_SERVICES__LOG__LEVEL is the same key"
    ]


def test_variable_that_may_mean_two_names_is_told() -> None:
    text = (
        GOOD
        + '[services.a-b]\nuse = "depot.code:report"\n[services."a.b"]\nuse = "depot.code:report"\n'
    )

    assert problems(text, TRIO_SERVICES__SERVICES__A_B__CRITICAL="false") == [
        'environment TRIO_SERVICES__SERVICES__A_B__CRITICAL: it may mean a-b or "a.b"; use --set'
    ]
