"""What a durable queue does not take, in one clear line each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_services import pg
from trio_services.pg._payload import Codec


def deep(levels: int) -> list[Any]:
    """Lists in lists."""
    return [deep(levels - 1)] if levels else []


@attrs.frozen
class Reading:
    at: datetime
    value: float


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ("a\0b", "NUL"),
        ({"a\0": 1}, "NUL"),
        ("\ud800", "surrogate"),
        (float("nan"), "nan is no number"),
        ([float("-inf")], r"at \[0\]: -inf"),
        (2**53 + 1, "beyond 2"),
        (deep(33), "more than 32 deep"),
        ({"a": {1: 2}}, "at a: the key 1 is not text"),
        (b"bytes", "bytes"),
        ({"a": [object()]}, r"at a\[0\]: an object of type object"),
        (datetime(2026, 1, 1), "no time zone"),  # noqa: DTZ001
        (Reading(datetime(2026, 1, 1), 1.0), "no time zone"),  # noqa: DTZ001
        ("x" * 1024 * 1024, "1,048,578 bytes"),
    ],
)
async def test_item_is_refused(item: object, told: str) -> None:
    queue = pg.Queue[Any](pg.Pool(), "numbers")
    with pytest.raises(pg.BadPayload, match=told) as caught:
        await queue.put(item)
    assert str(caught.value).startswith("queue numbers does not take the item")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"priority": 101}, "priority must be -100 … 100, not 101"),
        ({"priority": True}, "priority"),
        ({"delay": -1.0}, "delay must be at least 0 s"),
        ({"delay": float("nan")}, "delay"),
        ({"run_at": datetime(2026, 1, 1)}, "no time zone"),  # noqa: DTZ001
        ({"unique": ""}, "unique key"),
        ({"unique": "\0"}, "NUL"),
    ],
)
async def test_bad_words_about_an_item_are_refused(how: dict[str, Any], told: str) -> None:
    queue = pg.Queue[Any](pg.Pool(), "numbers")
    with pytest.raises(pg.BadPayload, match=told):
        await queue.put(1, **how)


@pytest.mark.parametrize("name", ["", "Emails", "1st", "a" * 49, "a b", 'a"', "ä"])
def test_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name for a queue"):
        pg.Queue[Any](pg.Pool(), name)


def test_bad_lease_and_attempts_are_refused() -> None:
    with pytest.raises(ValueError, match="lease of queue a must be at least 1 s"):
        pg.Queue[Any](pg.Pool(), "a", lease=0.5)
    with pytest.raises(ValueError, match="attempts of queue a must be"):
        pg.Queue[Any](pg.Pool(), "a", attempts=0)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


@given(JSON)
def test_what_is_taken_comes_back_as_it_was(value: object) -> None:
    codec = Codec("numbers", 1, None)
    assert codec.decode(codec.encode(value, Any), 1, Any) == value
