from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from functools import partial
from itertools import pairwise

import pytest
import trio

from trio_services import Backoff, Child, Limit, PlanError, Service, Supervisor

from .harness import idle


def test_duplicate_names_are_refused() -> None:
    with pytest.raises(PlanError, match=r"app: two children are named 'idle'; give one name="):
        Supervisor("app", [idle, idle])


def test_unknown_dependency_is_refused_with_a_suggestion() -> None:
    with pytest.raises(PlanError) as caught:
        Supervisor("app", [Child(idle, name="database"), Child(idle, after="databse")])

    assert str(caught.value) == (
        "app/idle comes after 'databse', which is no child of app; did you mean 'database'?"
    )


def test_unknown_dependency_without_a_likeness_is_refused() -> None:
    with pytest.raises(PlanError, match=r"which is no child of app$"):
        Supervisor("app", [Child(idle, name="a", after="zebra")])


def test_dependency_on_a_service_of_another_supervisor_is_refused() -> None:
    with pytest.raises(PlanError, match=r"inner/idle comes after 'a', which is no child of inner"):
        Supervisor("app", [Child(idle, name="a"), Supervisor("inner", [Child(idle, after="a")])])


def test_dependency_on_itself_is_refused() -> None:
    with pytest.raises(PlanError, match="app/a comes after itself"):
        Supervisor("app", [Child(idle, name="a", after="a")])


def test_cycle_is_refused_and_told_in_its_order() -> None:
    with pytest.raises(PlanError) as caught:
        Supervisor(
            "app",
            [
                Child(idle, name="a", after="b"),
                Child(idle, name="b", after="c"),
                Child(idle, name="c", after="a"),
                Child(idle, name="d", after="a"),
            ],
        )

    head, _, told = str(caught.value).partition(": each of these comes after the next: ")
    assert head == "app"
    cycle = told.split(" → ")
    assert cycle[0] == cycle[-1]
    comes_after = {"a": "b", "b": "c", "c": "a"}
    assert all(comes_after[one] == other for one, other in pairwise(cycle))


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        Supervisor(
            "app",
            [
                Child(idle, name="a", after=["a", "x"]),
                Child(idle, name="b", after="y"),
                Child(idle, name="b"),
            ],
        )

    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", "a\x1b[31m"])
def test_text_that_cannot_be_part_of_a_path_is_no_name(name: str) -> None:
    with pytest.raises(PlanError, match="is no name for a service"):
        Child(idle, name=name)
    with pytest.raises(PlanError, match="is no name for a service"):
        Supervisor(name, [])


def test_running_coroutine_is_no_service() -> None:
    coroutine = idle()
    try:
        with pytest.raises(PlanError, match="the function itself, not its call"):
            Child(coroutine)  # type: ignore[arg-type]
    finally:
        coroutine.close()


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("start_within", 0),
        ("start_within", -1),
        ("start_within", math.nan),
        ("stop_within", -1),
        ("stop_within", math.nan),
        ("restart", "sometimes"),
    ],
)
def test_value_out_of_range_is_refused_by_name(parameter: str, value: object) -> None:
    with pytest.raises(ValueError, match=parameter):
        Child(idle, **{parameter: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=parameter):
        Supervisor("app", [], **{parameter: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("count", "per"), [(-1, 1), (1, 0), (1, -1), (1, math.inf), (1, math.nan)])
def test_limit_out_of_range_is_refused(count: int, per: float) -> None:
    with pytest.raises(ValueError, match=r"count|per"):
        Limit(count, per)


def test_async_generator_is_no_service() -> None:
    async def numbers() -> AsyncGenerator[int]:  # noqa: ASYNC124, ASYNC900
        yield 1

    class Numbers(Service):
        async def run(self) -> AsyncGenerator[int]:  # type: ignore[override]  # noqa: ASYNC900
            yield 1

    for service in (numbers, Numbers(), Numbers):
        with pytest.raises(PlanError, match=r"umbers.* is not a service: it yields"):
            Child(service)  # type: ignore[arg-type]


def test_number_is_no_policy() -> None:
    with pytest.raises(TypeError, match="'backoff' must be"):
        Child(idle, backoff=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'breaker' must be"):
        Child(idle, breaker=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'backoff' must be"):
        Supervisor("app", [idle], backoff=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'breaker' must be"):
        Supervisor("app", [idle], breaker=5)  # type: ignore[arg-type]


def test_number_is_no_limit() -> None:
    with pytest.raises(TypeError, match="'max_restarts' must be"):
        Supervisor("app", [idle], max_restarts=5)  # type: ignore[arg-type]


def test_supervisor_comes_after_what_it_says_also_where_it_is_given_as_a_child() -> None:
    inner = Supervisor("inner", [idle], after=["a"])

    tree = Supervisor(
        "app", [Child(idle, name="a"), Child(idle, name="b"), Child(inner, after=["b"])]
    )

    assert set(tree.graph["inner"]) == {"a", "b"}


def test_plan_is_checked_when_it_is_written() -> None:
    # Nothing runs here: there is no event loop.
    inner = Supervisor("inner", [Child(idle, stop_within=3)])
    assert Supervisor("app", [inner, Child(idle, stop_within=1, after="inner")]).worst_stop == 4


class Named(Service):
    async def run(self) -> None: ...


def test_children_go_by_the_name_of_their_class_or_function() -> None:
    tree = Supervisor("app", [Named, idle, partial(trio.sleep_until, 5)])

    assert [child.name for child in tree.children] == [
        "Named",
        "idle",
        "sleep_until",
    ]


def test_dependency_may_be_given_twice() -> None:
    assert Child(idle, name="a", after=["b", "b"]).after == ("b",)


def test_worst_stop_of_unrelated_services_is_the_longest() -> None:
    tree = Supervisor("app", [Child(idle, name=f"c{n}", stop_within=n) for n in range(5)])

    assert tree.worst_stop == 4


def test_worst_stop_of_a_chain_is_the_sum() -> None:
    tree = Supervisor(
        "app",
        [
            Child(idle, name="a", stop_within=1),
            Child(idle, name="b", stop_within=2, after="a"),
            Child(idle, name="c", stop_within=4, after="b"),
            Child(idle, name="d", stop_within=5, after="a"),
        ],
    )

    assert tree.worst_stop == 7


def test_supervisor_can_be_given_more_time_than_it_needs_but_not_less() -> None:
    inner = Supervisor("inner", [Child(idle, stop_within=25, start_within=40)])

    assert Supervisor("app", [Child(inner, stop_within=26)]).worst_stop == 26
    with pytest.raises(PlanError, match="app/inner may need 25 s to stop"):
        Supervisor("app", [Child(inner, stop_within=5)])
    with pytest.raises(PlanError, match="app/inner may need 40 s to start"):
        Supervisor("app", [Child(inner, start_within=30)])


def test_tree_is_a_value() -> None:
    backoff = Backoff(initial=1)

    assert Supervisor("app", [Child(idle, backoff=backoff)]) == Supervisor(
        "app", [Child(idle, backoff=backoff)]
    )
