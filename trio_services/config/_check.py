"""What no table can know by itself: whether the names in one mean something in another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from ._constraints import is_name
from ._durations import format_duration
from ._overrides import Tree
from ._problems import KeyPath, Problem, is_table, quoted, suggestion
from ._reference import CodeReference
from ._schema import CHILDREN, NAMED, RESERVED, AnyChildTable, ScheduleTable, Tables


def check(tree: Tree, tables: Tables, *, imports_known: bool) -> Iterator[Problem]:
    """What is wrong between the tables of a document.

    Args:
        tree: the whole document, whose names count even where their tables are not sound.
        tables: what of it is sound.
        imports_known: whether `host.imports` is.
    """
    yield from _check_names(tree)
    names = {name for group in CHILDREN for name in _names(tree, group)}
    if not names:
        yield Problem(
            (), "nothing to run; add a [services.NAME], [workers.NAME] or [schedules.NAME] table"
        )
    children = tables.children
    if imports_known and tables.host.container is not None:
        yield from _check_import(("host", "container"), tables.host.container, tables.host.imports)
    known = names | ({"database"} & tree.keys())
    for key, child in children.items():
        yield from _check_after(key, child, known)
        if imports_known:
            yield from _check_imports(key, child, tables.host.imports)
    yield from _check_cycles(children)
    queues = _names(tree, "queues")
    for name, workers in tables.workers.items():
        yield from _check_queue(("workers", name, "queue"), workers.queue, queues)
        for place, fed in enumerate(workers.feeds):
            yield from _check_queue(("workers", name, "feeds", place), fed, queues)
        if workers.batch is not None and workers.key is not None:
            yield Problem(
                ("workers", name, "key"), "does not go together with `batch`; leave one of them out"
            )
    for name, schedule in tables.schedules.items():
        yield from _check_times(("schedules", name), schedule, _table(tree, "schedules", name))
    for name in tables.log.levels:
        if name not in known:
            yield Problem(("log", "levels", name), _no_such(name, known))


def _check_queue(key: KeyPath, name: str, queues: Sequence[str]) -> Iterator[Problem]:
    if name not in queues:
        remedy = suggestion(name, queues) or f"; add a [queues.{name}] table"
        yield Problem(key, f"there is no queue {quoted(name)}{remedy}")


def _check_times(key: KeyPath, schedule: ScheduleTable, written: Tree) -> Iterator[Problem]:
    every, cron = schedule.every, schedule.cron
    if "every" not in written and "cron" not in written:
        yield Problem(key, 'needs either every, like "5m", or cron, like "*/5 * * * *"')
    elif every is not None and cron is not None:
        yield Problem((*key, "cron"), "does not go together with `every`; leave one of them out")
    elif every is None and schedule.start:
        yield Problem((*key, "start"), "goes with `every`, not with `cron`")
    elif cron is None and schedule.timezone is not None:
        yield Problem((*key, "timezone"), "goes with `cron`, not with `every`")
    if every is not None and schedule.jitter >= every:
        yield Problem(
            (*key, "jitter"),
            f"{format_duration(schedule.jitter)} is too large; "
            f"expected less than the {format_duration(every)} of `every`",
        )


def _names(tree: Tree, group: str) -> list[str]:
    """The names of the tables in a table; none where it is not one, which is reported by then."""
    return list(_table(tree, group))


def _table(tree: Tree, *key: str) -> Tree:
    """A table in a document; empty where there is none."""
    for part in key:
        table = tree.get(part)
        if not is_table(table):
            return {}
        tree = table
    return tree


def _check_names(tree: Tree) -> Iterator[Problem]:
    taken: dict[str, str] = {}
    for group in NAMED:
        for name in _names(tree, group):
            key = (group, name)
            try:
                is_name(None, None, name)
            except ValueError as error:
                yield Problem(key, str(error))
                continue
            if group not in CHILDREN:
                continue
            if name in RESERVED:
                yield Problem(key, f"the name {quoted(name)} is reserved; choose another")
            elif name in taken:
                yield Problem(key, f"the name {quoted(name)} is taken by {taken[name]}.{name}")
            taken.setdefault(name, group)


def _check_after(key: KeyPath, child: AnyChildTable, names: set[str]) -> Iterator[Problem]:
    for place, name in enumerate(child.after):
        if name == key[1]:
            yield Problem((*key, "after", place), f"{quoted(name)} cannot come after itself")
        elif name not in names:
            yield Problem((*key, "after", place), _no_such(name, names))


def _no_such(name: str, names: Iterable[str]) -> str:
    if name == "database":
        return "there is no database; add a [database] table"
    return f"there is no service, workers or schedule {quoted(name)}{suggestion(name, names)}"


def _check_imports(
    key: KeyPath, child: AnyChildTable, imports: tuple[str, ...]
) -> Iterator[Problem]:
    for field, reference in _references(child):
        yield from _check_import((*key, *field), reference, imports)


def _check_import(
    key: KeyPath, reference: CodeReference, imports: tuple[str, ...]
) -> Iterator[Problem]:
    if not is_within(reference.module, imports):
        near = suggestion(reference.module, imports)
        yield Problem(
            key,
            f"{quoted(reference.module)} is not in host.imports; "
            f"add its package there if this file may load it{near}",
        )


_REFERENCES = ("use", "handler", "key", "fallback", "on_dead", "on_left", "call", "retry.on")


def _references(child: AnyChildTable) -> Iterator[tuple[KeyPath, CodeReference]]:
    """The code that a table names, by its keys."""
    for field in _REFERENCES:
        key = field.split(".")
        reference: object = child
        for part in key:
            reference = getattr(reference, part, None)
        if isinstance(reference, CodeReference):
            yield tuple(key), reference


def is_within(module: str, packages: Iterable[str]) -> bool:
    """Whether a module belongs to one of some packages; those of this project always do."""
    return any(
        module == package or module.startswith(f"{package}.")
        for package in (*packages, "trio_services")
    )


def _check_cycles(children: Mapping[KeyPath, AnyChildTable]) -> Iterator[Problem]:
    keys = {str(key[1]): key for key in children}
    # What comes after itself or after nothing that exists is a problem of its own.
    after = {
        str(key[1]): [name for name in child.after if name in keys and name != key[1]]
        for key, child in children.items()
    }
    while cycle := _cycle(after):
        first = min(cycle, key=list(keys).index)
        start = cycle.index(first)
        story = " → ".join((*cycle[start:], *cycle[:start], first))
        yield Problem((*keys[first], "after"), f"each of these comes after the next: {story}")
        for name in cycle:
            after[name] = []


def _cycle(after: Mapping[str, Iterable[str]]) -> list[str]:
    """Some names each of which comes after the next, and the last after the first, if any do."""
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        # Each is followed by what comes after it, and the first is also the last.
        return list(reversed(error.args[1]))[1:]
    return []
