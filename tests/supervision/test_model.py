"""Random supervisors and operators in virtual time, held event by event against a model of them.

Each child's clocks have a fraction of a second of their own, so that few ring at the same moment;
where two do the model is not sure of what follows, and the comparison ends at that moment. Each
service's own events are compared in their order, with their times and data; events of different
services at the same moment follow from each other in no particular order, and are not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, cast

import attrs
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from trio_services import (
    Backoff,
    Breaker,
    Child,
    Limit,
    RestartLimitExceeded,
    Service,
    ServicesError,
    StopFailed,
    Supervisor,
    current_service,
    graceful,
)
from trio_services.lifecycle import Bus, events
from trio_services.supervision import Strategy, Tree

from .harness import Boom, ending_within
from .model import Command, Happening, Model, Play

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hypothesis.vendor.pretty import RepresentationPrinter

EXAMPLES = settings(deadline=None)


@attrs.frozen
class Scene:
    """What a supervisor is made of, what its services do, and what an operator says to it."""

    spec: Supervisor
    scripts: Mapping[str, Sequence[Play]]
    commands: Sequence[Command]
    open_ended: bool

    def _repr_pretty_(self, printer: RepresentationPrinter, cycle: bool) -> None:
        """How hypothesis shows it."""
        parts = [self.spec, *self.spec.children, *self.scripts.items(), *self.commands]
        printer.text("\n  ".join(["Scene:", *map(brief, parts), f"open_ended={self.open_ended}"]))


def brief(value: object) -> str:
    """A value with those of its attributes only that say something."""
    if isinstance(value, tuple | list):
        inside = ", ".join(map(brief, cast("Iterable[object]", value)))
        return f"[{inside}]"
    kind = type(value)
    if not attrs.has(kind) or isinstance(value, Actor):
        return repr(value)
    said = [
        f"{field.name}={brief(getattr(value, field.name))}"
        for field in attrs.fields(kind)
        if field.repr
        and field.name not in ("service", "children", "jitter", "overdue_after")
        and getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(said)})"


# -- what really happens ---------------------------------------------------------------


@attrs.define(eq=False, repr=False)
class Actor:
    """Makes a fresh service for each start, which plays the next part; the last for ever."""

    script: Sequence[Play]
    made: int = 0

    def __repr__(self) -> str:
        return "Actor"

    def __call__(self) -> Playing:
        self.made += 1
        return Playing(self.script[min(self.made, len(self.script)) - 1])


class Playing(Service):
    """Does as its script says; all of it is one unit of work in hand."""

    def __init__(self, play: Play) -> None:
        self.play = play
        self.stopping = False

    async def _heed(self, scope: trio.CancelScope) -> None:
        await current_service().wait_stop_requested()
        self.stopping = True
        scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        play = self.play
        with graceful():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._heed, nursery.cancel_scope)
                if play.ready is not None:
                    await trio.sleep(play.ready)
                    task_status.started()
                await trio.sleep(play.ends)
                nursery.cancel_scope.cancel()
            if self.stopping:
                await trio.sleep(play.stops)
        if play.fails_at_stop if self.stopping else play.fails:
            raise Boom("failed")


@attrs.define(eq=False)
class Reality:
    """What the real supervisor did, in the words of the model."""

    happenings: list[Happening] = attrs.field(factory=list[Happening])
    answers: dict[Command, tuple[float, str]] = attrs.field(
        factory=dict[Command, tuple[float, str]]
    )
    raised: str = ""

    async def play(self, scene: Scene) -> None:
        bus = Bus()
        tree = Tree(scene.spec, 1000, bus, open_ended=scene.open_ended)
        with bus.listening(self._listen):
            async with trio.open_nursery() as nursery:
                for command in scene.commands:
                    nursery.start_soon(self._say, tree, command)
                try:
                    async with tree.open():
                        await tree.wait_ended()
                except (RestartLimitExceeded, StopFailed) as error:
                    self.raised = type(error).__name__
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()

    async def _say(self, tree: Tree, command: Command) -> None:
        await trio.sleep_until(command.at)
        error = ""
        try:
            if command.method == "request_stop":
                tree.request_stop()
                return
            if command.method == "trip":
                tree.trip(command.name)
            elif command.method == "reset":
                tree.reset(command.name)
            elif command.child is not None:
                await tree.start(command.child)
            elif command.method == "stop":
                await tree.stop(command.name)
            elif command.method == "restart":
                await tree.restart(command.name)
            else:
                await tree.remove(command.name)
        except ServicesError as caught:
            error = type(caught).__name__
        self.answers[command] = (trio.current_time(), error)

    def _listen(self, event: events.Event) -> None:
        self.happenings.append((event.at, event.service, tuple(words_for(event))))


def words_for(event: events.Event) -> Iterable[object]:
    """An event in the words of the model."""
    yield type(event).__name__.removeprefix("Service")
    match event:
        case events.ServiceStarting(attempt=attempt):
            yield attempt
        case events.ServiceFailed(failure=failure, stopping=stopping):
            yield from (failure.type, stopping)
        case events.ServiceRestarting(delay=delay):
            yield delay
        case events.ServiceStopping(within=within):
            yield within
        case events.BreakerOpened(opened=opened, delay=delay):
            yield from (opened, delay)
        case events.BreakerGaveUp(opened=opened):
            yield opened
        case events.SupervisorGaveUp(reason=reason):
            yield "critical" if "critical" in reason else "limit"
        case _:
            pass


# -- the comparison --------------------------------------------------------------------


def by_service(happenings: Iterable[Happening], until: float) -> dict[str, list[object]]:
    told: dict[str, list[object]] = defaultdict(list)
    for when, service, what in happenings:
        if when < until:
            told[service].append((when, *what))
    return told


def check(scene: Scene) -> None:
    """Hold a scene as it is really played against the model of it."""
    model = Model(scene.spec, scene.scripts, open_ended=scene.open_ended)
    model.simulate(scene.commands)
    reality = Reality()

    async def main() -> None:
        await reality.play(scene)

    with ending_within(20):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))

    until = model.sure_until
    expected = by_service(model.happenings, until)
    really = by_service(reality.happenings, until)
    for service in sorted({*expected, *really}):
        assert (service, really.get(service)) == (service, expected.get(service))
    for command in scene.commands:
        answers = [of.get(command, (math.inf, "")) for of in (reality.answers, model.answers)]
        if min(answers)[0] < until:
            assert (command, answers[0]) == (command, answers[1])
    if until == math.inf:
        assert reality.raised == model.raised


# -- scenes ----------------------------------------------------------------------------

MOMENT = 1 / 4096  # the fractions of a second that keep clocks apart are made of these

quarters = st.integers(1, 16).map(lambda n: n / 4)
plays = st.builds(
    Play,
    ready=st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0, 3.0, None]),
    ends=quarters | st.sampled_from([0.25, 1.0, 60.0, math.inf]),
    fails=st.sampled_from([True, True, False]),
    stops=st.sampled_from([0.0, 0.0, 0.5, 1.0, 2.5]),
    fails_at_stop=st.sampled_from([False, False, False, True]),
)
backoffs = st.builds(
    Backoff,
    initial=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    factor=st.sampled_from([1, 2]),
    cap=st.sampled_from([1, 2, 60]),
    jitter=st.just(0),
    reset_after=st.sampled_from([0.25, 1.0, 2.0, 60.0]),
)
breakers = st.builds(
    Breaker,
    failures=st.integers(1, 3),
    within=st.sampled_from([1.0, 2.0, 3.0, 30.0]),
    reset_after=st.sampled_from([0.5, 1.0, 2.0]),
    cap=st.sampled_from([1.0, 3.0, 60.0]),
    healthy_after=st.sampled_from([0.0, 0.5 + 7 * MOMENT, 1.0, 2.0 + 7 * MOMENT]),
    give_up_after=st.sampled_from([None, None, 1, 2]),
    jitter=st.just(0),
)
limits = st.builds(Limit, st.integers(0, 4), st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0, 60.0]))
EASY = Limit(1_000, per=1.0)


def apart(script: Sequence[Play], number: int, *, every: bool) -> list[Play]:
    """The same with the clocks of child `number` in fractions of a second of its own.

    Those of the first run only, unless `every`: then what comes after stays on the grid of
    quarters of a second, counted from its first failure, and meets the limits of a window exactly.
    """
    own = MOMENT * 8 * 2**number
    return [
        attrs.evolve(
            play,
            ready=None if play.ready is None else play.ready + own * (every or not n),
            ends=play.ends + own * (play.ready is None and (every or not n)),
            stops=play.stops + own * bool(play.stops),
        )
        for n, play in enumerate(script)
    ]


@st.composite
def children(
    draw: st.DrawFn, name: str, number: int, before: Sequence[str], *, breaking: bool
) -> tuple[Child, Sequence[Play]]:
    script = apart(draw(st.lists(plays, min_size=1, max_size=5)), number, every=draw(st.booleans()))
    child = Child(
        Actor(script),
        name=name,
        after=sorted(draw(st.sets(st.sampled_from(before), max_size=2))) if before else (),
        restart=draw(st.sampled_from(["always", "on_failure", None, None, "never"])),
        backoff=draw(st.none() | backoffs),
        breaker=draw(st.none() | breakers) if breaking else None,
        start_within=draw(st.sampled_from([None, 0.75 + 3 * MOMENT, 2 + 3 * MOMENT])),
        stop_within=draw(st.sampled_from([None, 0.0, 0.75 + 5 * MOMENT, 2 + 5 * MOMENT])),
        critical=draw(st.booleans()),
        retry_start=draw(st.sampled_from([True, True, False])),
    )
    return child, script


@st.composite
def scenes(
    draw: st.DrawFn,
    *,
    strategies: Sequence[Strategy] = ("one_for_one",),
    breaking: bool = False,
    limited: bool = True,
    methods: Sequence[str] = (),
    open_ended: bool = True,
    most: int = 3,
) -> Scene:
    cast: list[Child] = []
    scripts: dict[str, Sequence[Play]] = {}
    for number, name in enumerate("abcde"[: draw(st.integers(1, most))]):
        child, scripts[name] = draw(children(name, number, [*scripts], breaking=breaking))
        cast.append(child)
    strategy = draw(st.sampled_from(strategies))
    spec = Supervisor(
        "app",
        cast if strategy == "rest_for_one" else draw(st.permutations(cast)),
        strategy=strategy,
        max_restarts=draw(limits) if limited else EASY,
        backoff=draw(backoffs),
        breaker=draw(st.none() | breakers) if breaking else None,
        stop_within=3 + 5 * MOMENT,
    )
    commands: list[Command] = []
    for n in range(draw(st.integers(1, 6)) if methods else 0):
        at = draw(st.integers(0, 40)) / 4 + (2 * n + 1) * MOMENT
        method = draw(st.sampled_from(methods))
        if method == "start":
            name = draw(st.sampled_from(["x", "x", "y", "a"]))
            child, script = draw(children(name, 5, [*scripts], breaking=breaking))
            scripts.setdefault(name, script)
            child = attrs.evolve(child, service=Actor(scripts[name]))
            commands.append(Command(at, "start", name, child))
        else:
            name = draw(st.sampled_from([*scripts]))
            commands.append(Command(at, method, name))  # type: ignore[arg-type]
    until = draw(st.integers(0, 100)) / 4 + 2 * MOMENT
    return Scene(spec, scripts, [*commands, Command(until, "request_stop")], open_ended)


@EXAMPLES
@given(scenes())
def test_restarts_delays_and_limits(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(most=1))
def test_restarts_of_one_child_at_the_limits_of_its_windows(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(limited=False, breaking=True))
def test_breakers(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(strategies=["one_for_all"], breaking=True, limited=False, most=4))
def test_one_for_all(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(strategies=["rest_for_one"], breaking=True, limited=False, most=4))
def test_rest_for_one(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(open_ended=False))
def test_end_by_itself(scene: Scene) -> None:
    check(scene)


STOPS = ["stop", "restart", "restart", "remove", "start", "start"]


@EXAMPLES
@given(scenes(methods=STOPS, limited=False))
def test_stops_and_starts_by_an_operator(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(scenes(methods=["trip", "trip", "reset", "restart", "stop"], limited=False, breaking=True))
def test_breakers_in_the_hands_of_an_operator(scene: Scene) -> None:
    check(scene)


@EXAMPLES
@given(
    scenes(
        methods=[*STOPS, "trip", "reset"],
        strategies=["one_for_all", "rest_for_one", "one_for_one"],
        breaking=True,
    )
)
def test_everything_at_once(scene: Scene) -> None:
    check(scene)
