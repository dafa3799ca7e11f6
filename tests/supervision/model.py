"""What one supervisor does, written from its contract: a specification that can be run. Pure.

Theory. A supervisor is a state machine that is driven by clocks: those of its children, each of
which plays its script, those of its policies, and the commands of an operator. At each moment one
clock rings, what follows from it at once is worked out (`settle`), and the next clock rings. There
are no tasks: a child is a phase, what it is to do after it has been stopped, and its clocks.

=============  ================================  ====================================
phase          clocks                            is left when
=============  ================================  ====================================
`waiting`                                        all that it comes after have passed,
                                                 and no group holds it
`starting`     `ready`, `ends`, `late`           it is ready, ends, is told to stop
`running`      `ends`, `healthy` if it is a      it ends, is told to stop
               probe
`backing_off`  `due`                             it is due, or an operator says so
`stopping`     `stopped`                         it has ended
`stopped`, `down`,                               an operator says so, or if it is
`done`, `failed`                                 `done` a group does
=============  ================================  ====================================

A *group* is what is restarted together by a strategy: its cause, its members, and those of them
that still run. It holds them all until its cause's delay is over and none of them runs any more.

Two clocks that ring at the same moment may ring in any order in reality. The model then stops, and
`sure_until` says so: what is compared ends there. A clock that is set to ring at once is no such
tie, but a consequence.

Where the contract is silent, this is what the model says:

* Whoever ends by itself before it could be told to stop has failed or returned like any other;
  if its supervisor stops for good, nothing follows.
* What a child was told last holds: who is to be restarted and is then told to stay down does, and
  the other way round. A child that is `done` and told to stop is `done`, but no group wakes it.
* A run that was long enough resets the backoff however it ended.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import attrs

from trio_services import Breaker, Child, Supervisor

Phase = Literal[
    "waiting",
    "starting",
    "running",
    "backing_off",
    "stopping",
    "stopped",  # by an operator, or with its supervisor
    "down",  # by a group, for good
    "done",
    "failed",
]
Then = Literal["again", "down", "stay", "leave"]
Happening = tuple[float, str, tuple[object, ...]]  # when, to whom, what and with which data

RUNS = ("starting", "running", "stopping")
ENDED = ("stopped", "down", "done", "failed")


@attrs.frozen
class Play:
    """What one run of a service does.

    Args:
        ready: seconds until it says that it is; None: never.
        ends: seconds from then, or from its start if it is never ready, until it ends.
        fails: whether it ends by failing; else it returns.
        stops: seconds that it takes at a stop for what it has in hand.
        fails_at_stop: whether it fails then, if it is not cut short.
    """

    ready: float | None = 0.0
    ends: float = math.inf
    fails: bool = True
    stops: float = 0.0
    fails_at_stop: bool = False


@attrs.frozen(eq=False)
class Command:
    """What an operator says: a method of `Tree`, and about whom."""

    at: float
    method: Literal["start", "stop", "restart", "remove", "trip", "reset", "request_stop"]
    name: str = ""
    child: Child | None = None


@attrs.define(eq=False)
class Circuit:
    """A breaker at work; see its table."""

    breaker: Breaker
    state: Literal["closed", "open", "half_open"] = "closed"
    opened: int = 0
    due: float = math.inf
    failures: list[float] = attrs.field(factory=list[float])

    @property
    def given_up(self) -> bool:
        return self.state == "open" and self.due == math.inf

    def open(self, now: float, opened: int) -> float:
        self.state, self.opened = "open", opened
        delay = min(self.breaker.reset_after * 2.0 ** (opened - 1), self.breaker.cap)
        self.due = now + delay
        return delay


@attrs.define(eq=False)
class Life:
    """One child; `policy` has the supervisor's defaults in it."""

    policy: Child
    script: Sequence[Play]
    circuit: Circuit | None
    after: frozenset[str]  # also those that it comes after because one between them has gone
    phase: Phase = "waiting"
    clocks: dict[str, float] = attrs.field(factory=dict[str, float])
    attempt: int = 0
    ready_at: float = math.inf  # in this run
    was_ready: bool = False  # in any
    arrived: bool = False  # the supervisor's own readiness does not wait for it any more
    repetition: int = 0
    told: bool = False  # that it is to stop, by a group that comes to it in order
    then: Then = "again"
    within: float = math.inf  # which it has to stop

    @property
    def play(self) -> Play:
        return self.script[min(self.attempt, len(self.script)) - 1]

    @property
    def runs(self) -> bool:
        return self.phase in RUNS

    @property
    def passed(self) -> bool:
        """Whether those that come after it need not wait for it."""
        return self.phase in ("running", "down", "done", "failed")


@attrs.define(eq=False)
class Group:
    """What is restarted together."""

    cause: Life
    members: list[Life]
    running: list[Life]
    due: bool = False  # whether the cause was, once

    def holds(self) -> bool:
        self.due |= self.cause.phase != "backing_off"
        return bool(self.running) or not self.due


class Model:
    """One supervisor at the root of a tree. See `simulate`."""

    def __init__(
        self,
        spec: Supervisor,
        scripts: Mapping[str, Sequence[Play]],
        *,
        open_ended: bool = True,
        stop_within: float = 1000.0,
    ) -> None:
        self.spec, self.scripts = spec, scripts
        self.open_ended, self.stop_within = open_ended, stop_within
        self.now = 0.0
        self.sure_until = math.inf
        self.happenings: list[Happening] = []
        self.answers: dict[Command, tuple[float, str]] = {}
        self.raised = ""
        self._lives = {child.name: self._life(child) for child in spec.children}
        self._first = list(self._lives.values())
        self._groups: list[Group] = []
        self._restarts: list[float] = []
        self._asked: list[tuple[Command, Life]] = []
        self._unwanted: list[Life] = []
        self._deadline = math.inf
        self._ready = self._stopping = self._requested = self._over = False

    def simulate(self, commands: Iterable[Command]) -> None:
        """Run until the end; the last command has to be a `request_stop`."""
        todo = sorted(commands, key=lambda command: command.at, reverse=True)
        self._publish("", "Starting", 1)
        self._settle()
        while not self._over:
            clocks = [
                (when, life, what)
                for life in self._lives.values()
                for what, when in life.clocks.items()
            ]
            when = min([when for when, *_ in clocks] + [command.at for command in todo[-1:]])
            due = [(life, what) for then, life, what in clocks if then == when]
            told = bool(todo) and todo[-1].at == when
            if when > self.now and len(due) + told > 1:
                self.sure_until = when
                return
            self.now = when
            if due:
                life, what = due[0]
                del life.clocks[what]
                getattr(self, f"_on_{what}")(life)
            else:
                self._obey(todo.pop())
            self._settle()

    # -- what follows at once ----------------------------------------------------------

    def _settle(self) -> None:
        """Tell to stop, and start, whoever may be; and see whether all is ready or over."""
        before = -1
        while before != (before := len(self.happenings)):
            for life in [] if self._stopping else list(self._lives.values()):
                if life.then == "leave" and not life.runs:
                    self._forget(life)
            self._groups = [group for group in self._groups if group.holds()]
            held = [one for group in self._groups for one in (group.cause, *group.members)]
            for life in self._lives.values():
                if life.told and not any(other.runs for other in self._dependents(life)):
                    self._tell(life)
                free = all(self._lives[name].passed for name in self._after(life))
                if life.phase == "waiting" and free and life not in held and not self._stopping:
                    self._start(life)
            if self._unwanted:  # whose end has let others start before
                for life in self._unwanted:
                    life.then = "leave"
                self._unwanted.clear()
                before = -1
        if not self._ready and not self._stopping and all(one.arrived for one in self._first):
            self._ready = True
            self._publish("", "Ready")
        lives = self._lives.values()
        if not self.open_ended and not self._stopping and all(one.phase in ENDED for one in lives):
            self._stop()
        if self._stopping and not any(one.runs for one in lives):
            self._over = True
            if self._requested and not self.raised:
                self._publish("", "Stopped")

    def _forget(self, life: Life) -> None:
        """Strike one off the books; those after it come after what it came after itself."""
        name = life.policy.name
        del self._lives[name]
        for other in self._lives.values():
            if name in other.after:
                other.after = other.after - {name} | life.after

    def _after(self, life: Life) -> set[str]:
        """The names of those that it comes after."""
        names = list(self._lives)
        at = names.index(life.policy.name)
        before = names[at - 1 : at] if at and self.spec.strategy == "rest_for_one" else []
        return {*life.after, *before}

    def _dependents(self, life: Life) -> list[Life]:
        """Those that come after it, and those that come after these."""
        found = [life]
        for one in found:
            name = one.policy.name
            found += [
                other
                for other in self._lives.values()
                if name in self._after(other) and other not in found
            ]
        return found[1:]

    # -- the life of a child -----------------------------------------------------------

    def _start(self, life: Life) -> None:
        life.attempt += 1
        life.then = "again"
        life.ready_at = math.inf
        play = life.play
        life.clocks["late"] = self.now + (life.policy.start_within or math.inf)
        if play.ready is None:
            life.clocks["ends"] = self.now + play.ends
        else:
            life.clocks["ready"] = self.now + play.ready
        self._enter(life, "starting", "Starting", life.attempt)

    def _on_ready(self, life: Life) -> None:
        life.clocks = {"ends": self.now + life.play.ends}
        life.ready_at = self.now
        life.was_ready = True
        if life.circuit and life.circuit.state == "half_open":
            life.clocks["healthy"] = self.now + life.circuit.breaker.healthy_after
        self._enter(life, "running", "Ready")

    def _on_healthy(self, life: Life) -> None:
        self._close(life)

    def _on_late(self, life: Life) -> None:
        self._failed(life, "StartTimeout")

    def _on_ends(self, life: Life) -> None:
        if life.play.fails:
            self._failed(life, "Boom")
        elif life.phase == "starting":
            self._failed(life, "StartFailed")
        else:
            self._returned(life)

    def _on_due(self, life: Life) -> None:
        """The delay of its backoff, or of its breaker, is over."""
        if life.circuit and life.circuit.state == "open":
            life.circuit.state = "half_open"
            self._publish(life.policy.name, "BreakerHalfOpened")
        self._enter(life, "waiting")

    # -- how a run ends by itself ------------------------------------------------------

    def _returned(self, life: Life) -> None:
        if life.circuit and life.circuit.state == "half_open":
            self._close(life)
        self._publish(life.policy.name, "Returned")
        wanted = life.told and life.then == "again"  # by a group
        self._leave(life)
        if self._stopping or (life.policy.restart != "always" and not wanted):
            self._enter(life, "done")
        elif life.policy.restart != "always":
            self._wait_again(life)
        elif self._may_restart(life):
            self._back_off(life)

    def _failed(self, life: Life, error: str) -> None:
        circuit, policy = life.circuit, life.policy
        self._publish(policy.name, "Failed", error, False)
        self._leave(life)
        if policy.restart == "never" or not (life.was_ready or policy.retry_start):
            self._fail_for_good(life)
        elif self._stopping:
            self._enter(life, "failed")
        elif circuit is None:
            if self._may_restart(life):
                self._back_off(life)
        elif circuit.state == "closed" and not self._too_many(circuit):
            self._back_off(life)
        elif circuit.opened >= (circuit.breaker.give_up_after or math.inf):
            self._publish(policy.name, "BreakerGaveUp", circuit.opened)
            circuit.open(self.now, circuit.opened + 1)
            circuit.due = math.inf
            self._fail_for_good(life)
        else:
            delay = circuit.open(self.now, circuit.opened + 1)
            self._publish(policy.name, "BreakerOpened", circuit.opened, delay)
            self._publish(policy.name, "Restarting", delay)
            life.arrived |= not policy.critical
            self._wait(life, delay)
            self._take_down(life)

    def _leave(self, life: Life) -> None:
        """It has ended, in whatever way."""
        self._count_run(life)
        life.clocks = {}
        life.told = False
        for group in self._groups:
            group.running = [one for one in group.running if one is not life]
        self._answer(life, ("stop", "remove"))

    def _count_run(self, life: Life) -> None:
        """It is not running any more, for whatever reason: was that long enough?"""
        backoff = life.policy.backoff or self.spec.backoff
        if life.phase == "running" and self.now - life.ready_at >= backoff.reset_after:
            life.repetition = 0

    def _too_many(self, circuit: Circuit) -> bool:
        """Whether one more failure is one too many for a closed breaker."""
        since = self.now - circuit.breaker.within
        circuit.failures = [when for when in circuit.failures if when > since] + [self.now]
        return len(circuit.failures) >= circuit.breaker.failures

    def _may_restart(self, life: Life) -> bool:
        """Whether one more restart is not one too many; else give up."""
        limit = self.spec.max_restarts
        self._restarts = [when for when in self._restarts if when > self.now - limit.per]
        self._restarts.append(self.now)
        if len(self._restarts) <= limit.count:
            return True
        self._enter(life, "failed")
        self._give_up("limit")
        return False

    def _back_off(self, life: Life) -> None:
        backoff = life.policy.backoff or self.spec.backoff
        life.repetition += 1
        delay = min(backoff.initial * backoff.factor ** (life.repetition - 1), backoff.cap)
        self._publish(life.policy.name, "Restarting", delay)
        self._wait(life, delay)
        self._take_down(life)

    def _wait(self, life: Life, delay: float) -> None:
        life.clocks = {"due": self.now + delay}
        self._enter(life, "backing_off")

    def _wait_again(self, life: Life) -> None:
        """Start as soon as may be: not while its breaker is open."""
        if life.circuit and life.circuit.state == "open":
            self._wait(life, max(0.0, life.circuit.due - self.now))
        else:
            self._enter(life, "waiting")

    def _take_down(self, cause: Life) -> None:
        """Restart others together with one, as the strategy says."""
        lives = list(self._lives.values())
        others = {
            "one_for_one": [],
            "one_for_all": [one for one in lives if one is not cause],
            "rest_for_one": lives[lives.index(cause) + 1 :],
        }[self.spec.strategy]
        for life in others:
            once = life.policy.restart == "never"
            if life.phase in ("starting", "running"):
                life.told = True
                life.then = "down" if once else "again"
            elif life.phase == "done" and not once and life.then != "stay":
                self._wait_again(life)
        self._groups.append(Group(cause, others, [one for one in others if one.runs]))

    def _fail_for_good(self, life: Life) -> None:
        self._enter(life, "failed")
        if life.policy.critical:
            self._give_up("critical")

    def _close(self, life: Life) -> None:
        assert life.circuit is not None
        life.circuit = Circuit(life.circuit.breaker)
        self._publish(life.policy.name, "BreakerClosed")

    # -- stops -------------------------------------------------------------------------

    def _tell(self, life: Life) -> None:
        """Tell one that runs to stop."""
        assert life.policy.stop_within is not None
        self._count_run(life)
        life.told = False
        within = max(0.0, min(life.policy.stop_within, self._deadline - self.now))
        life.within = within
        life.clocks = {"stopped": self.now + min(life.play.stops, within)}
        self._enter(life, "stopping", "Stopping", within)

    def _on_stopped(self, life: Life) -> None:
        name = life.policy.name
        if life.play.fails_at_stop and life.play.stops < life.within:
            self._publish(name, "Failed", "Boom", True)
            if self._stopping:
                self.raised = self.raised or "StopFailed"
        else:
            self._publish(name, "Stopped")
        self._leave(life)
        if self._stopping or life.then != "again":
            self._enter(life, "down" if life.then == "down" else "stopped")
        else:
            self._wait_again(life)

    def _give_up(self, reason: str) -> None:
        if self.raised != "RestartLimitExceeded":
            self.raised = "RestartLimitExceeded"
            self._publish("", "SupervisorGaveUp", reason)
        self._stop()

    def _stop(self) -> None:
        """Stop all for good."""
        if not self._stopping:
            self._stopping = True
            self._publish("", "SupervisorStopping")
        for life in self._lives.values():
            if life.phase in ("waiting", "backing_off"):
                life.clocks = {}
                self._enter(life, "stopped")
            life.told = life.phase in ("starting", "running")

    # -- the operator ------------------------------------------------------------------

    def _obey(self, command: Command) -> None:
        name, method = command.name, command.method
        life = self._lives.get(name)
        if method == "request_stop":
            if not self._requested:
                self._requested = True
                self._deadline = self.now + self.stop_within
                self._publish("", "Stopping", self.stop_within)
                self._stop()
        elif error := self._refusal(command):
            self.answers[command] = (self.now, error)
        elif method == "start":
            assert command.child is not None
            life = self._lives[name] = self._life(command.child)
            self._asked.append((command, life))
        elif life is not None:
            {
                "stop": lambda: self._end(life, "stay"),
                "restart": lambda: self._end(life, "again"),
                "remove": lambda: self._end(life, "leave"),
                "trip": lambda: self._trip(life),
                "reset": lambda: self._reset(life),
            }[method]()
            over = method in ("trip", "reset") or (method != "restart" and life.phase in ENDED)
            if over:
                self.answers[command] = (self.now, "")
            else:
                self._asked.append((command, life))

    def _refusal(self, command: Command) -> str:
        name, method, child = command.name, command.method, command.child
        if child is not None:
            if self._stopping:
                return "ServicesError"
            there = {one.policy.name for one in self._lives.values() if one.then != "leave"}
            return "PlanError" if name in self._lives or not there.issuperset(child.after) else ""
        life = self._lives.get(name)
        if life is None:
            return "UnknownService"
        if method == "restart" and (self._stopping or life.then == "leave"):
            return "ServicesError"
        if method == "remove" and any(name in one.policy.after for one in self._lives.values()):
            return "PlanError"
        return "ServicesError" if method in ("trip", "reset") and life.circuit is None else ""

    def _end(self, life: Life, then: Then) -> None:
        """Stop one if it runs, whoever comes after it; and then what is said."""
        if life.then == "leave":
            return
        life.then = then
        if life.phase in ("starting", "running"):
            self._tell(life)
        elif life.phase != "stopping":
            life.clocks = {}
            if then == "again":
                self._on_due(life)
                return
            if life.phase not in ENDED:
                self._enter(life, "stopped")

    def _trip(self, life: Life) -> None:
        assert life.circuit is not None
        if life.circuit.given_up:
            return
        delay = life.circuit.open(self.now, max(life.circuit.opened, 1))
        self._publish(life.policy.name, "BreakerOpened", life.circuit.opened, delay)
        if life.phase in ("starting", "running"):
            self._end(life, "again")
        elif life.phase in ("waiting", "backing_off"):
            self._wait(life, delay)

    def _reset(self, life: Life) -> None:
        assert life.circuit is not None
        if life.circuit.state == "closed":
            return
        left_alone = life.circuit.state == "open" and life.phase == "backing_off"
        self._close(life)
        life.clocks.pop("healthy", None)
        if left_alone:
            life.clocks = {}
            self._enter(life, "waiting")

    # -- small parts -------------------------------------------------------------------

    def _life(self, child: Child) -> Life:
        spec = self.spec
        breaker = child.breaker or spec.breaker
        policy = attrs.evolve(
            child,
            restart=child.restart or spec.restart,
            start_within=child.start_within or spec.start_within,
            stop_within=spec.stop_within if child.stop_within is None else child.stop_within,
        )
        circuit = Circuit(breaker) if breaker else None
        return Life(policy, self.scripts[child.name], circuit, frozenset(child.after))

    def _publish(self, name: str, *what: object) -> None:
        path = f"{self.spec.name}/{name}" if name else self.spec.name
        self.happenings.append((self.now, path, what))

    def _enter(self, life: Life, phase: Phase, *what: object) -> None:
        """Be in another phase."""
        life.phase = phase
        life.arrived |= phase in ("running", *ENDED)
        if what:
            self._publish(life.policy.name, *what)
        if phase in ENDED:
            self._answer(life, ("stop", "remove"))
        if phase in ("running", *ENDED):
            up = phase in ("running", "done")
            self._answer(life, ("start", "restart"), "" if up else "StartFailed")

    def _answer(self, life: Life, methods: Sequence[str], error: str = "") -> None:
        """Answer those operators that waited for it."""
        for command, asked in self._asked[:]:
            if asked is life and command.method in methods:
                self.answers[command] = (self.now, error)
                self._asked.remove((command, asked))
                if command.method == "start" and error:
                    self._unwanted.append(life)
