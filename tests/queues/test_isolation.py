"""Handlers in threads and processes: real ones, on the real clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

from trio_services.errors import ServicesError, StartFailed, TimedOut
from trio_services.lifecycle import State, events
from trio_services.queues import PoolStatistics, Workers, WorkQueue, current_job
from trio_services.resilience import Backoff, Retry
from trio_services.supervision import Child, Supervisor, open_supervisor

from .crunching import OnlyHere, Task, Unpickling, attempts, crunch, ignore, measure
from .working import ends, working

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

TWICE = Retry(2, Backoff(initial=0))


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):  # noqa: ASYNC912
        while not condition():  # noqa: ASYNC110 -- of files and other processes
            await trio.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


others: set[int] = set()  # children that other tests keep, such as a server


@pytest.fixture(autouse=True)
def only_own_children() -> Generator[None]:
    others.update(child_processes())
    yield
    others.clear()


def child_processes() -> list[int]:
    """The ids of a test's own children, also of those that have ended and were not waited for."""
    found: list[int] = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if int((directory / "stat").read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(directory.name))
    return [pid for pid in found if pid not in others]


def open_files() -> int:
    """How many file descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def has_ended(child: int) -> bool:
    """Whether a child has ended, and is waited for by nobody yet."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


async def crunched(task: Task, *, timeout: float | None = None) -> WorkQueue[Task]:
    """The queue of one task, after it was done."""
    queue = WorkQueue[Task]("tasks")
    queue.put_nowait(task)
    queue.close()
    workers = Workers(queue, crunch, isolation="process", retry=TWICE, timeout=timeout)
    async with working(Child(workers, name="pool")) as watched:
        await until(lambda: watched.tree.life.children["pool"].state.ended)
    return queue


# -- threads ----------------------------------------------------------------------------


async def test_handler_in_a_thread_does_not_hold_up_the_loop() -> None:
    queue = WorkQueue[float]("naps")
    threads: set[int] = set()
    jobs: list[str] = []

    def handle(seconds: float) -> None:
        job = current_job.get()
        assert job is not None
        jobs.append(job.id)
        threads.add(threading.get_ident())
        time.sleep(seconds)

    async with working(Workers(queue, handle, count=2, isolation="thread")):
        for _ in range(2):
            queue.put_nowait(0.2)
        began = time.monotonic()
        await trio.sleep(0.05)
        assert time.monotonic() - began < 0.15
        await until(lambda: queue.statistics().done == 2)
    assert threading.get_ident() not in threads
    assert sorted(jobs) == ["naps#1", "naps#2"]


async def test_handler_in_a_thread_may_heed_its_time_out() -> None:
    queue = WorkQueue[int]("naps")

    def handle(item: int) -> None:
        while True:
            time.sleep(0.005)
            trio.from_thread.check_cancelled()

    workers = Workers(queue, handle, isolation="thread", timeout=0.05)
    async with working(Child(workers, name="pool")) as watched:
        queue.put_nowait(1)
        await until(lambda: queue.statistics().dead == 1)
    (dead,) = watched.of(events.JobDead)
    assert isinstance(dead.error, TimedOut)


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_async_handler_is_refused_where_it_cannot_run(isolation: str) -> None:
    with pytest.raises(ValueError, match=f"sleep is an async function, .* run in a {isolation}"):
        Workers(WorkQueue[float]("naps"), trio.sleep, isolation=isolation)  # type: ignore[arg-type]


def test_unknown_isolation_is_refused() -> None:
    with pytest.raises(ValueError, match="isolation must be one of 'task', 'thread', 'process'"):
        Workers(WorkQueue[float]("naps"), trio.sleep, isolation="fork")  # type: ignore[arg-type]


# -- processes --------------------------------------------------------------------------


async def test_handler_runs_in_a_process_that_is_used_again(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    tasks = [Task("work", tmp_path / str(n)) for n in range(6)]
    workers = Workers(queue, crunch, count=2, isolation="process")
    async with working(Child(workers, name="pool")):
        for task in tasks:
            await queue.put(task)
        await until(lambda: queue.statistics().done == 6)
        pids = {pid for task in tasks for pid in attempts(task)}
        assert os.getpid() not in pids
        assert len(pids) <= 2
    assert not any(is_running(pid) for pid in pids)  # and none is left


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("discard", {"discarded": 1}),
        ("later", {"done": 1}),
        ("die", {"done": 1}),
        ("exit", {"done": 1}),
        ("fail", {"dead": 1}),
        ("odd", {"dead": 1}),
        ("write to fd 1", {"done": 1}),
        ("read", {"done": 1}),
    ],
)
async def test_what_a_handler_in_a_process_raises_counts(
    what: str, expected: dict[str, int], tmp_path: Path
) -> None:
    queue = await crunched(Task(what, tmp_path / "log"))
    assert ends(queue.statistics()) == expected


async def test_failure_in_a_process_is_told_with_its_traceback_there(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    queue.put_nowait(Task("fail", tmp_path / "log"))
    async with working(Child(Workers(queue, crunch, isolation="process"), name="pool")) as watched:
        await until(lambda: queue.statistics().dead == 1)
    (dead,) = watched.of(events.JobDead)
    assert isinstance(dead.error, ValueError)
    (note,) = dead.error.__notes__
    assert "in a worker process:" in note
    assert 'raise ValueError("cannot crunch that")' in note


async def test_error_that_cannot_be_sent_is_told_in_words(tmp_path: Path) -> None:
    queue = await crunched(Task("odd", tmp_path / "log"))
    (letter,) = queue.dead_letters()
    assert letter.failure.message == "Odd: very odd"


async def test_killed_process_is_a_failed_attempt_and_no_dead_pool(tmp_path: Path) -> None:
    task = Task("die", tmp_path / "log")
    queue = await crunched(task)
    assert len(set(attempts(task))) == 2
    assert queue.statistics().retried == 1


async def test_time_out_kills_the_process(tmp_path: Path) -> None:
    task = Task("work", tmp_path / "log", seconds=1000)
    queue = await crunched(task, timeout=0.3)
    assert len(attempts(task)) == 2
    assert not any(is_running(pid) for pid in attempts(task))
    (letter,) = queue.dead_letters()
    assert letter.failure.type == "TimedOut"


async def test_job_in_a_process_is_finished_at_a_stop(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    task = Task("work", tmp_path / "log", seconds=0.3)
    async with working(Child(Workers(queue, crunch, isolation="process"), name="pool")):
        queue.put_nowait(task)
        await until(lambda: bool(attempts(task)))
    assert ends(queue.statistics()) == {"done": 1}


async def test_process_is_killed_when_a_stop_has_no_more_time(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    task = Task("work", tmp_path / "log", seconds=1000)
    began = time.monotonic()
    child = Child(Workers(queue, crunch, isolation="process"), name="pool", stop_within=0.2)
    async with working(child):
        queue.put_nowait(task)
        await until(lambda: bool(attempts(task)))
    assert time.monotonic() - began < 10
    assert ends(queue.statistics()) == {"returned": 1}
    assert not is_running(attempts(task)[0])


async def test_signal_to_all_does_not_interrupt_a_job_in_a_process(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    task = Task("work", tmp_path / "log", seconds=0.3)
    async with working(Child(Workers(queue, crunch, isolation="process"), name="pool")):
        queue.put_nowait(task)
        await until(lambda: bool(attempts(task)))
        for number in (signal.SIGINT, signal.SIGTERM):  # as by Ctrl-C, and by systemd
            os.kill(attempts(task)[0], number)
        await until(lambda: queue.statistics().done == 1)
    assert len(attempts(task)) == 1


async def test_item_that_cannot_be_sent_is_a_failed_attempt() -> None:
    queue = WorkQueue[object]("objects")
    async with working(Child(Workers(queue, ignore, isolation="process"), name="pool")):
        queue.put_nowait(lambda: None)
        queue.put_nowait(1)
        await until(lambda: ends(queue.statistics()) == {"done": 1, "dead": 1})
    (letter,) = queue.dead_letters()
    assert "lambda" in letter.failure.message


async def test_item_that_cannot_be_received_is_a_failed_attempt() -> None:
    queue = WorkQueue[object]("objects")
    async with working(Child(Workers(queue, ignore, isolation="process"), name="pool")):
        for item in (Unpickling("fail"), 1, Unpickling("exit"), 2):
            queue.put_nowait(item)
        await until(lambda: ends(queue.statistics()) == {"done": 2, "dead": 2})
    assert [letter.failure.type for letter in queue.dead_letters()] == [
        "ValueError",
        "WorkerProcessDied",
    ]


async def test_huge_items_come_over_whole() -> None:
    queue = WorkQueue[bytes]("blocks")
    async with working(Child(Workers(queue, measure, count=2, isolation="process"), name="pool")):
        for _ in range(6):
            await queue.put(bytes(10_000_000))
        await until(lambda: queue.statistics().done == 6)


async def test_process_that_dies_idle_fails_nobody(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    first, second = Task("work", tmp_path / "first"), Task("work", tmp_path / "second")
    async with working(Child(Workers(queue, crunch, isolation="process"), name="pool")):
        queue.put_nowait(first)
        await until(lambda: queue.statistics().done == 1)
        (pid,) = attempts(first)
        os.kill(pid, signal.SIGKILL)
        await until(lambda: has_ended(pid))
        queue.put_nowait(second)
        await until(lambda: queue.statistics().done + queue.statistics().dead == 2)
        assert attempts(first) != attempts(second)
    assert ends(queue.statistics()) == {"done": 2}
    assert not child_processes()


async def test_nothing_is_leaked_over_many_jobs_and_dead_processes(tmp_path: Path) -> None:
    queue = WorkQueue[Task]("tasks")
    workers = Workers(queue, crunch, count=2, isolation="process", retry=TWICE)
    async with working(Child(workers, name="pool")):
        before = 0
        for number in range(200):
            await queue.put(Task("die" if number % 20 == 5 else "work", tmp_path / str(number)))
            if number == 50:
                await until(lambda: queue.statistics().done == 51)
                before = open_files()
        await until(lambda: queue.statistics().done == 200)
        assert open_files() <= before + 3  # of a process, if there was one less
        assert len(child_processes()) <= 2
    assert not child_processes()


async def test_start_that_fails_leaves_no_process_behind() -> None:
    queue = WorkQueue[int]("numbers")
    before = open_files()
    async with open_supervisor(Supervisor("app", [])) as running:
        with pytest.raises(StartFailed, match="this handler is not for you"):
            await running.start(
                Child(
                    Workers(queue, OnlyHere(), count=3, isolation="process"),
                    name="pool",
                    retry_start=False,
                    critical=False,
                )
            )
        assert not child_processes()
        assert open_files() <= before + 4  # the ones of the event loop


async def test_hard_cancel_while_processes_start_leaves_none_behind() -> None:
    for after in (0, 0.005, 0.02, 0.05, 0.1):
        queue = WorkQueue[object]("objects")
        workers = Workers(queue, ignore, count=4, isolation="process")
        with trio.move_on_after(after):
            async with working(Child(workers, name="pool")):
                await trio.lowlevel.checkpoint()
        assert not child_processes()


async def test_statistics_can_be_read_while_processes_start() -> None:
    queue = WorkQueue[object]("objects")
    workers = Workers(queue, ignore, isolation="process")
    async with open_supervisor(Supervisor("app", [])) as tree, trio.open_nursery() as nursery:
        nursery.start_soon(tree.start, Child(workers, name="pool"))
        await until(lambda: "pool" in tree.life.children)
        life = tree.life.children["pool"]
        while life.state is not State.RUNNING:
            tree.statistics()
            with pytest.raises(ServicesError, match="pool is starting: there is nothing to resize"):
                tree.resize("pool", 2)
            await trio.sleep(0.005)
        tree.resize("pool", 2)
        (pool,) = tree.statistics().children
        assert isinstance(pool.work, PoolStatistics)
        assert pool.work.count == 2


def test_error_that_the_program_itself_defines_comes_back_as_that(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import trio
            from trio_services import Supervisor, Workers, WorkQueue, open_supervisor

            class Mine(Exception):
                pass

            def crunch(item):
                raise Mine("own words")

            async def main():
                queue = WorkQueue("numbers")
                queue.put_nowait(1)
                queue.close()
                workers = Workers(queue, crunch, isolation="process")
                async with open_supervisor(Supervisor("app", [workers])) as tree:
                    life = tree.life.children["crunch"]
                    while not life.state.ended:
                        await life.wait_changed()
                failure = queue.dead_letters()[0].failure
                print(failure.type, failure.message)

            if __name__ == "__main__":
                trio.run(main)  # `trio_services.run` imports what hides whether it works
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "Mine own words\n"


async def test_handler_that_no_process_can_have_fails_the_start() -> None:
    queue = WorkQueue[int]("numbers")
    workers = Workers(queue, lambda item: item, isolation="process")
    tree = Supervisor("app", [Child(workers, name="pool", restart="never", critical=False)])
    async with open_supervisor(Supervisor("empty", [])) as running:
        with pytest.raises(StartFailed, match="pickle"):
            await running.start(
                Child(tree.children[0].service, name="pool", retry_start=False, critical=False)
            )


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            from trio_services import Supervisor, Workers, WorkQueue, run

            def crunch(item):  # which is known as `__main__.crunch`
                print(os.getpid(), file=sys.stderr, flush=True)
                time.sleep(1000)

            if __name__ == "__main__":
                queue = WorkQueue("numbers")
                queue.put_nowait(1)
                run(Supervisor("app", [Workers(queue, crunch, isolation="process")]))
            """
        )
    )
    with subprocess.Popen(
        [sys.executable, str(program)], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines = iter(partial(process.stderr.readline), "")
        pid = next(int(line) for line in lines if line.strip().isdigit())
        process.kill()
        process.wait()
        deadline = time.monotonic() + 10
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(pid)
