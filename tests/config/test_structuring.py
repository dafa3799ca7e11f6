"""Values into types: what fits is taken as it is, and nothing is guessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set as AbstractSet
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Any, Literal, Self

import attrs
import pytest

from trio_services.config import Seconds
from trio_services.config._overrides import Given
from trio_services.config._secrets import Secrets
from trio_services.config._structure import StructureError, strict_converter, structure


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class Email(str):
    """Text that has to look like an address."""

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        if "@" not in text:
            raise ValueError(f"{text!r} is no address")
        return super().__new__(cls, text)


class Plain:
    pass


def doubled(value: int) -> int:
    return value * 2


@attrs.frozen
class Leaf:
    name: str
    _hidden: int = 0
    twice: int = attrs.field(default=1, converter=doubled)
    fixed: int = attrs.field(default=7, init=False)


@dataclasses.dataclass
class Tree:
    leaves: list[Leaf]
    branches: list[Tree] = dataclasses.field(default_factory=list["Tree"])
    kind: Literal["oak", "elm"] = "oak"


@attrs.frozen
class Wanting:
    choice: Literal["a", 1]
    items: list[int]
    table: dict[str, int]
    union: int | Seconds | None
    marked: Annotated[int, "how many"]
    leaf: Leaf
    decimal: Decimal


@attrs.frozen
class Lost:
    where: Nowhere  # type: ignore[name-defined]  # noqa: F821


def fit(value: object, target: Any) -> Any:
    secrets = Secrets(Path("/base"), {})
    return structure(strict_converter(Path("/base"), secrets), value, target, ("key",))


def misfits(value: object, target: Any) -> list[tuple[object, ...]]:
    with pytest.raises(StructureError) as caught:
        fit(value, target)
    return [(*problem.key[1:], problem.text) for problem in caught.value.problems]


FITTING: list[tuple[object, Any, object]] = [
    (True, bool, True),
    (5, int, 5),
    (5, float, 5.0),
    ("x", str, "x"),
    ("a@b", Email, Email("a@b")),
    ("red", Colour, Colour.RED),
    (1, Number, Number.ONE),
    (1, Literal["a", 1], 1),
    (datetime(2026, 1, 1, tzinfo=UTC), datetime, datetime(2026, 1, 1, tzinfo=UTC)),
    (date(2026, 1, 1), date, date(2026, 1, 1)),
    (time(12), time, time(12)),
    ("x", Path, Path("/base/x")),
    ("/x", Path, Path("/x")),
    ("x", PurePath, PurePath("/base/x")),
    ("x", PurePosixPath, PurePosixPath("/base/x")),
    ("2s", Seconds, 2.0),
    (5, Annotated[int, "five"], 5),
    ("x", str | None, "x"),
    (5, int | Seconds, 5),
    ("5m", int | Seconds, 300.0),
    ([1], list[int], [1]),
    ([1], tuple[int, ...], (1,)),
    ([1, 1], set[int], {1}),
    ([1], frozenset[int], frozenset({1})),
    ([1], Sequence[int], (1,)),
    ([1], AbstractSet[int], frozenset({1})),
    ([1, "x"], list, [1, "x"]),
    ({"a": 1}, dict[str, int], {"a": 1}),
    ({"red": 1}, Mapping[Colour, int], {Colour.RED: 1}),
    ({"a": [1]}, dict, {"a": [1]}),
    ({"a": Given("1", 1)}, dict[str, Any], {"a": 1}),
    ({"name": "x", "hidden": 5}, Leaf, Leaf("x", 5)),
    ({"name": "x", "twice": 5}, Leaf, Leaf("x", twice=5)),
    ({"leaves": [{"name": "x"}]}, Tree, Tree([Leaf("x")])),
    ({"leaves": [], "branches": [{"leaves": []}]}, Tree, Tree([], [Tree([])])),
]


@pytest.mark.parametrize(("value", "target", "made"), FITTING, ids=repr)
def test_value_fits(value: object, target: Any, made: object) -> None:
    found = fit(value, target)

    assert found == made
    assert type(found) is type(made)


@pytest.mark.parametrize(
    ("value", "target", "problem"),
    [
        (1, bool, "1 is not true or false"),
        ("true", bool, '"true" is not true or false'),
        (True, int, "true is not a whole number"),
        (3.0, int, "3.0 is not a whole number"),
        ("3", int, '"3" is not a whole number'),
        (True, float, "true is not a number"),
        ("3", float, '"3" is not a number'),
        (float("nan"), float, "nan is not a finite number"),
        (float("-inf"), float, "-inf is not a finite number"),
        (10**400, float, "a number of too many digits is not a finite number"),
        (5, str, "5 is not text"),
        (["x"], str, "an array is not text"),
        (date(2026, 1, 1), str, "2026-01-01 is not text"),
        (datetime(2026, 1, 1), date, "2026-01-01T00:00:00 is not a date"),  # noqa: DTZ001
        (date(2026, 1, 1), datetime, "2026-01-01 is not a date with a time"),
        ("nobody", Email, "'nobody' is no address"),
        ("blue", Colour, '"blue" is not one of "red"'),
        (True, Number, "true is not one of 1"),
        (True, Literal["a", 1], 'true is not one of "a", 1'),
        (5, Path, "5 is not a path"),
        ("", Path, '"" is not a path'),
        ("a\0b", Path, r'"a\x00b" is not a path'),
        ("x", list[str], '"x" is not an array; write ["x"]'),
        ({}, list[str], "a table is not an array"),
        ([], dict[str, int], "an array is not a table"),
        (5, Leaf, "5 is not a table"),
        (True, int | None, "true is not a whole number"),
        (True, int | str, "true is not a whole number or text"),
        (b"x", bytes, "a configuration cannot hold bytes"),
        (5, Decimal, "a configuration cannot hold decimal.Decimal"),
        ({}, Plain, f"a configuration cannot hold {__name__}.Plain"),
        ([1, 2], tuple[int, int], "a configuration cannot hold tuple[int, int]"),
        ({}, Lost, "the annotations of Lost do not resolve: name 'Nowhere' is not defined"),
    ],
    ids=repr,
)
def test_value_does_not_fit(value: object, target: Any, problem: str) -> None:
    assert misfits(value, target) == [(problem,)]


def test_everything_that_does_not_fit_is_told_with_its_place() -> None:
    value: dict[str, Any] = {
        "leaves": [{"name": 1}, {"hidden": "x", "fixed": 1}, "leaf"],
        "branches": [{"leaves": [], "kind": "ash"}],
        "roots": 5,
    }

    assert misfits(value, Tree) == [
        ("leaves", 0, "name", "1 is not text"),
        ("leaves", 1, "hidden", '"x" is not a whole number'),
        ("leaves", 1, "fixed", "unknown key; expected one of hidden, name, twice"),
        ("leaves", 1, "name", "missing; expected text"),
        ("leaves", 2, '"leaf" is not a table'),
        ("branches", 0, "kind", '"ash" is not one of "elm", "oak"'),
        ("roots", "unknown key; expected one of branches, kind, leaves"),
    ]


def test_missing_key_is_told_with_what_was_expected() -> None:
    duration = 'a duration: seconds, or text like "500ms", "1.5s", "10m", "2h", "1d"'

    assert misfits({}, Wanting) == [
        ("choice", 'missing; expected one of "a", 1'),
        ("items", "missing; expected an array"),
        ("table", "missing; expected a table"),
        ("union", f"missing; expected a whole number or {duration}"),
        ("marked", "missing; expected a whole number"),
        ("leaf", "missing; expected a table"),
        ("decimal", "missing; expected decimal.Decimal"),
    ]


def test_every_validator_of_a_class_is_heard_at_its_key() -> None:
    def below(limit: int) -> Any:
        return attrs.validators.lt(limit)

    @attrs.frozen
    class Validated:
        first: int = attrs.field(default=0, validator=below(5))
        second: int = attrs.field(default=0, validator=[below(9), below(5)])
        third: str = attrs.field(default="", validator=attrs.validators.in_(("a", "b")))

    assert misfits({"first": 5, "second": 5, "third": "c"}, Validated) == [
        ("first", "'first' must be < 5: 5"),
        ("second", "'second' must be < 5: 5"),
        ("third", "'third' must be in ('a', 'b') (got 'c')"),
    ]


def test_error_of_a_class_is_told_at_its_table() -> None:
    @dataclasses.dataclass
    class Picky:
        first: int = 0

        def __post_init__(self) -> None:
            if self.first == 1:
                raise KeyError("one")
            if self.first == 2:
                raise ValueError

    assert misfits({"first": 1}, Picky) == [("KeyError: 'one'",)]
    assert misfits({"first": 2}, Picky) == [("ValueError",)]


def test_shades_of_an_enum_are_its_values() -> None:
    class Shade(Enum):
        LIGHT = 0.5

    assert fit(0.5, Shade) is Shade.LIGHT
    assert misfits(1, Shade) == [("1 is not one of 0.5",)]
