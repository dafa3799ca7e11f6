"""Whether `test_model` has teeth: plants bugs in a copy of the package, one at a time, and runs it.

    python -m tests.supervision.planted_bugs [root of a working copy] [part of a bug's name]

Prints for each bug whether its test caught it. The exit status is 1 when one was not, or when a
test fails without any bug, which proves nothing; a bug that cannot be planted, because the text
that it replaces is not found exactly once, is an error.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

EXAMPLES = 2000
PROFILE = f"""
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "planted", deadline=None, database=None, derandomize=True, phases=[Phase.generate],
    max_examples={EXAMPLES}, suppress_health_check=list(HealthCheck),
)
settings.load_profile("planted")
"""


@attrs.frozen
class Bug:
    """A text of a file of the package, what it is replaced by, and the test that has to fail."""

    name: str
    file: str
    old: str
    new: str
    test: str

    def plant(self, root: Path) -> None:
        path = root / "trio_services" / self.file
        text = path.read_text(encoding="utf-8")
        if (found := text.count(self.old)) != 1:
            raise SystemExit(f"{self.name}: {self.file} has {found} times, not once:\n{self.old}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


LIMITS = "test_restarts_delays_and_limits"
WINDOWS = "test_restarts_of_one_child_at_the_limits_of_its_windows"
BREAKERS = "test_breakers"
ALL = "test_one_for_all"
REST = "test_rest_for_one"
ENDS = "test_end_by_itself"
OPERATOR = "test_stops_and_starts_by_an_operator"
BREAKING = "test_breakers_in_the_hands_of_an_operator"

RESTARTS = "supervision/_restarts.py"
SUPERVISION = "supervision/_supervision.py"
ENDINGS = "supervision/_endings.py"
CONTROL = "supervision/_control.py"
RECORD = "supervision/_record.py"
STOPPING = "supervision/_stopping.py"
TOGETHER = "supervision/_together.py"
BREAKER = "resilience/_breaker.py"

BUGS = [
    Bug(
        "one restart more than the limit",
        RESTARTS,
        "Window(self.count + 1, self.per)",
        "Window(self.count + 2, self.per)",
        LIMITS,
    ),
    Bug(
        "a window that holds its edge",
        "resilience/_window.py",
        "times[0] > now - self._per",
        "times[0] >= now - self._per",
        WINDOWS,
    ),
    Bug(
        "a window that does not slide",
        "resilience/_window.py",
        "and times[0] > now - self._per",
        "",
        WINDOWS,
    ),
    Bug(
        "backoff is never reset",
        RESTARTS,
        "if seconds >= self._backoff.reset_after:",
        "if False:",
        WINDOWS,
    ),
    Bug(
        "backoff is reset a moment late",
        RESTARTS,
        "if seconds >= self._backoff.reset_after:",
        "if seconds > self._backoff.reset_after:",
        WINDOWS,
    ),
    Bug(
        "time before readiness counts as healthy",
        ENDINGS,
        "if record.state is State.RUNNING else 0.0",
        "if record.state is not None else 0.0",
        WINDOWS,
    ),
    Bug(
        "a closed breaker remembers its failures",
        BREAKER,
        "self._failures.clear()",
        "pass",
        BREAKERS,
    ),
    Bug(
        "a closed breaker remembers its openings",
        BREAKER,
        "self.opened = 0\n        self.due",
        "self.due",
        BREAKERS,
    ),
    Bug(
        "a breaker gives up one opening late",
        BREAKER,
        "self.opened > last",
        "self.opened > last + 1",
        BREAKERS,
    ),
    Bug(
        "a start while the breaker is open",
        RESTARTS,
        "else circuit.due - now",
        "else (circuit.due - now) / 2",
        BREAKERS,
    ),
    Bug(
        "two probes: the first that fails is not the last",
        BREAKER,
        "if self.state is BreakerState.CLOSED and not self._failures.add(now):",
        "if not self._failures.add(now):",
        BREAKERS,
    ),
    Bug(
        "failures count toward the limit although a breaker handles them",
        RESTARTS,
        "if circuit.failed(now):\n",
        "if window.add(now):\n            return None\n        if circuit.failed(now):\n",
        "test_everything_at_once",
    ),
    Bug(
        "a tripped service starts while its breaker is open",
        SUPERVISION,
        "self.deadlines.set(record, circuit.due)",
        "self.deadlines.set(record, trio.current_time() + 0.125)",
        BREAKING,
    ),
    Bug(
        "a reset breaker stays open",
        CONTROL,
        "if before is BreakerState.OPEN and record.state is State.BACKING_OFF:",
        "if False:",
        BREAKING,
    ),
    Bug(
        "a member of a group starts before the others have ended",
        TOGETHER,
        "pending=1 + len(running)",
        "pending=1",
        ALL,
    ),
    Bug(
        "a member of a group starts before its cause is due",
        TOGETHER,
        "pending=1 + len(running)",
        "pending=len(running) or 1",
        ALL,
    ),
    Bug(
        "all are told to stop at once",
        STOPPING,
        "        if not record.busy_dependents:\n",
        "        if True:\n",
        LIMITS,
    ),
    Bug(
        "a group is taken down all at once",
        TOGETHER,
        "if not other.busy_dependents:",
        "if True:",
        ALL,
    ),
    Bug(
        "nobody is told to stop once its dependents have ended",
        SUPERVISION,
        "if dependency.to_stop:",
        "if dependency.to_stop and self.stopping:",
        ALL,
    ),
    Bug(
        "a critical failure does not escalate",
        ENDINGS,
        "        if record.critical:\n"
        '            give_up(supervision, f"{record.name} is critical and not restarted", error)',
        "        if False:\n"
        '            give_up(supervision, f"{record.name} is critical and not restarted", error)',
        LIMITS,
    ),
    Bug(
        "a failure escalates that is not critical",
        ENDINGS,
        "        if record.critical:\n"
        '            give_up(supervision, f"{record.name} is critical and not restarted", error)',
        "        if True:\n"
        '            give_up(supervision, f"{record.name} is critical and not restarted", error)',
        LIMITS,
    ),
    Bug(
        "a critical breaker that gives up does not escalate",
        ENDINGS,
        "        if record.critical:\n"
        '            give_up(supervision, f"{record.name} is critical, and its breaker',
        "        if False:\n"
        '            give_up(supervision, f"{record.name} is critical, and its breaker',
        BREAKERS,
    ),
    Bug(
        "who gives up does not raise",
        SUPERVISION,
        "self.outcome.raise_what_failed()",
        "pass",
        LIMITS,
    ),
    Bug(
        "a failure at the stop is not raised",
        ENDINGS,
        "            supervision.outcome.failed_at_stop(failure, error)",
        "            pass",
        LIMITS,
    ),
    Bug(
        "rest_for_one takes down earlier siblings",
        TOGETHER,
        "del others[: others.index(cause) + 1]",
        "pass",
        REST,
    ),
    Bug(
        "rest_for_one spares the next sibling",
        TOGETHER,
        "del others[: others.index(cause) + 1]",
        "del others[: others.index(cause) + 2]",
        REST,
    ),
    Bug(
        "a never-child is restarted by a group",
        TOGETHER,
        'if other.then is Then.END and other.restart != "never":',
        'if other.then is Then.END and (other.runs or other.restart != "never"):',
        ALL,
    ),
    Bug(
        "a never-child that is done is restarted by a group",
        TOGETHER,
        'if other.then is Then.END and other.restart != "never":',
        'if other.then is Then.END and (not other.runs or other.restart != "never"):',
        ALL,
    ),
    Bug(
        "a failed first start is tried again although it should not",
        ENDINGS,
        'record.restart == "never" or not (record.child.retry_start or record.readied)',
        'record.restart == "never"',
        LIMITS,
    ),
    Bug(
        "a dependent starts although what it comes after is down",
        ENDINGS,
        "    record.enter(State.BACKING_OFF)\n    record.close_way()\n",
        "    record.enter(State.BACKING_OFF)\n",
        LIMITS,
    ),
    Bug(
        "a supervisor of which all is done stays",
        SUPERVISION,
        "if self.wanted or self._open_ended or self.stopping:",
        "if True:",
        ENDS,
    ),
    Bug(
        "who was stopped by an operator starts again",
        CONTROL,
        "end(supervision, record, Then.STAY)",
        "end(supervision, record, Then.AGAIN)",
        OPERATOR,
    ),
    Bug(
        "a stop by an operator lets those that come after start",
        SUPERVISION,
        "        elif record.then is Then.STAY:\n            self.arrive(record)",
        "        elif record.then is Then.STAY:\n            self._pass(record)",
        OPERATOR,
    ),
    Bug(
        "only those that come right after are waited for at a stop",
        RECORD,
        "                if not dependency.busy:\n",
        "                if False:\n",
        REST,
    ),
    Bug(
        "a run that a stop ends does not reset the backoff",
        STOPPING,
        "        if was_ready:\n",
        "        if False:\n",
        OPERATOR,
    ),
    Bug(
        "a restart of one that waits is remembered",
        RECORD,
        "self.then, self.to_stop, self.overdue = Then.END, False, False",
        "self.to_stop, self.overdue = False, False",
        OPERATOR,
    ),
    Bug(
        "who may start waits for nobody",
        RECORD,
        "self.waits_for += not dependency.passed",
        "pass",
        OPERATOR,
    ),
]


def run(root: Path, test: str) -> bool:
    """Whether a test passes in a working copy."""
    where = f"tests/supervision/test_model.py::{test}"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", where]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=280
        )
    except subprocess.TimeoutExpired:
        return False
    if ended.returncode not in (0, 1):  # not what a test said, but pytest
        raise SystemExit(ended.stdout + ended.stderr)
    return ended.returncode == 0


def main(source: Path, wanted: str) -> int:
    bugs = [bug for bug in BUGS if wanted in bug.name]
    missed = 0
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for part in ("trio_services", "tests"):
            shutil.copytree(
                source / part, root / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(source / "pyproject.toml", root)
        with (root / "tests" / "conftest.py").open("a") as conftest:
            conftest.write(PROFILE)
        shutil.copytree(root / "trio_services", before := root / "before")

        def mend(bug: Bug) -> None:
            shutil.copy(before / bug.file, root / "trio_services" / bug.file)

        for bug in bugs:
            bug.plant(root)
            mend(bug)
        for test in sorted({bug.test for bug in bugs}):
            if not run(root, test):
                print(f"FAILS WITHOUT ANY BUG  {test}")
                missed += 1
        for bug in bugs:
            bug.plant(root)
            caught = not run(root, bug.test)
            mend(bug)
            missed += not caught
            print(
                f"{'caught' if caught else 'NOT CAUGHT':<10}  {bug.name}  ({bug.test})", flush=True
            )
    return 1 if missed else 0


if __name__ == "__main__":
    given = sys.argv[1:]
    repository = Path(given[0]) if given else Path(__file__).parents[2]
    sys.exit(main(repository, given[1] if len(given) > 1 else ""))
