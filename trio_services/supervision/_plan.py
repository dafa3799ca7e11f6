"""Whether a tree can be run as written, and how long it takes to start and to stop. Pure.

Theory: the children of a supervisor and their `after` are a graph; with the strategy
`rest_for_one` each child also comes after the one before it in the list. A start walks the graph
from the dependencies to the dependents, a stop the other way: a child is told to stop when all
that come after it have ended. In the worst case each takes all of its time, so that the worst
start, or stop, is the longest path through the graph, each child weighing its `start_within`, or
`stop_within`; that of a nested supervisor is its own worst.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Literal

from ..errors import PlanError
from ._child import Child

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]


def dependencies(children: Sequence[Child], strategy: Strategy) -> dict[str, tuple[str, ...]]:
    """The names that each child comes after."""
    graph: dict[str, tuple[str, ...]] = {}
    before: tuple[str, ...] = ()
    for child in children:
        graph[child.name] = tuple(dict.fromkeys((*before, *child.after)))
        if strategy == "rest_for_one":
            before = (child.name,)
    return graph


def check_children(supervisor: str, children: Sequence[Child], strategy: Strategy) -> None:
    """Refuse children that cannot be run together.

    Raises:
        PlanError: names that are used twice, dependencies that do not exist, a cycle of them, or
            a supervisor that is given less time than its own children may need.
    """
    known: set[str] = set()
    problems: list[str] = []
    for child in children:
        if child.name in known:
            problems.append(f"{supervisor}: two children are named {child.name!r}; give one name=")
        known.add(child.name)
    for child in children:
        problems += problems_of(supervisor, child, known)
    cyclic = any(child.after for child in children)
    if not problems and cyclic and (cycle := _cycle(dependencies(children, strategy))):
        problems.append(f"{supervisor}: each of these comes after the next: {cycle}")
    if problems:
        raise PlanError("\n".join(problems))


def problems_of(supervisor: str, child: Child, siblings: Collection[str]) -> list[str]:
    """What is wrong with one child among these siblings, itself included; a line each."""
    problems = [
        f"{supervisor}/{child.name} may need {worst:g} s to {what}, but its {what}_within is "
        f"{given:g} s: raise it, or leave it out"
        for what, given in (("start", child.start_within), ("stop", child.stop_within))
        if given is not None
        and _exceeds(worst := getattr(child.service, f"worst_{what}", 0), given)
    ]
    for name in child.after:
        if name == child.name:
            problems.append(f"{supervisor}/{name} comes after itself")
        elif name not in siblings:
            near = get_close_matches(name, siblings, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            problems.append(
                f"{supervisor}/{child.name} comes after {name!r}, "
                f"which is no child of {supervisor}{hint}"
            )
    return problems


def _exceeds(worst: float, budget: float) -> bool:
    # Sums of floats are a hair off; and what is no number is no budget.
    return not worst <= budget and not math.isclose(worst, budget)


def start_within(child: Child, default: float) -> float:
    """Seconds that a child has for its start: its own say, what a supervisor needs, the default."""
    if child.start_within is not None:
        return child.start_within
    return max(default, float(getattr(child.service, "worst_start", default)))


def longest_start(child: Child, default: float) -> float:
    """Seconds that a child takes at most to become ready, if it does."""
    return float(getattr(child.service, "worst_start", start_within(child, default)))


def stop_within(child: Child, default: float) -> float:
    """Seconds that a child has for its stop: its own say, what a supervisor needs, the default."""
    if child.stop_within is not None:
        return child.stop_within
    return float(getattr(child.service, "worst_stop", default))


def longest_path(within: Mapping[str, float], graph: Mapping[str, Sequence[str]]) -> float:
    """Seconds that a walk through the graph takes when each child uses all of its time."""
    if not any(graph.values()):
        return max(within.values(), default=0.0)
    ended: dict[str, float] = {}  # after how long those are done that end with this one
    for name in TopologicalSorter(graph).static_order():
        ended[name] = within[name] + max((ended[other] for other in graph[name]), default=0.0)
    return max(ended.values())


def check_budget(supervisor: str, worst: float, budget: float) -> None:
    """Refuse a tree that may need more time to stop than there is.

    Raises:
        PlanError: the worst stop is longer than the budget.
    """
    if _exceeds(worst, budget):
        raise PlanError(
            f"{supervisor} may need {worst:g} s to stop, but has {budget:g} s: lower the "
            "stop_within of services that come after each other, or raise the budget"
        )


def _cycle(graph: Mapping[str, Sequence[str]]) -> str:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " → ".join(reversed(error.args[1]))
    return ""
