"""`run` as a process, with real signals and real time."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from .process import running

if TYPE_CHECKING:
    from pathlib import Path

GUARD = 2.0  # seconds past its budget after which a process has ended
MARGIN = 0.7  # for a busy machine, and for an interpreter to go down


def test_sigterm_stops_cleanly(tmp_path: Path) -> None:
    with running(tmp_path, "app(idle); say('returned')") as program:
        program.wait_for("ready")
        begin = program.send(signal.SIGTERM)

        assert program.wait() == 0
        assert time.monotonic() - begin < 1 + MARGIN
        assert program.out[-1] == "returned"
        assert "Traceback" not in program.err


def test_sigint_stops_cleanly(tmp_path: Path) -> None:
    with running(tmp_path, "app(idle)") as program:
        program.wait_for("ready")
        program.send(signal.SIGINT)

        assert program.wait() == 0
        assert "KeyboardInterrupt" not in program.err


def test_run_returns_nothing_to_complain_about(tmp_path: Path) -> None:
    code = """
        async def job():
            await trio.sleep(0.01)

        say(f"returned {app(job)}")
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert program.out == ["returned 0"]


def test_single_service_is_an_application(tmp_path: Path) -> None:
    with running(tmp_path, "run(idle)") as program:
        program.wait_for("ready")
        program.send()

        assert program.wait() == 0


def test_sigterm_during_start_up_unwinds(tmp_path: Path) -> None:
    code = """
        async def starting(*, task_status):
            try:
                say("starting")
                await trio.sleep(60)
                task_status.started()
                say("ready")
            finally:
                say("undone")

        async def dependent():
            say("dependent")

        app(Child(starting), Child(dependent, after="starting"))
    """
    with running(tmp_path, code) as program:
        program.wait_for("starting")
        program.send()

        assert program.wait() == 0
        assert program.out == ["starting", "undone"]
        assert "app: ready" not in program.err
        assert "Traceback" not in program.err


def test_work_in_hand_finishes_at_a_stop(tmp_path: Path) -> None:
    code = """
        async def busy():
            with graceful():
                say("busy")
                await trio.sleep(0.6)
                say("finished")
            await trio.sleep_forever()

        app(Child(busy, stop_within=1))
    """
    with running(tmp_path, code) as program:
        program.wait_for("busy")
        program.send()

        assert program.wait() == 0
        assert program.out == ["busy", "finished"]


ENDLESS_WORK = """
    async def busy():
        with graceful():
            say("busy")
            try:
                await trio.sleep_forever()
            finally:
                say("cancelled")

    app(Child(busy, stop_within=20), stop_within=20)
"""


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_second_signal_cancels_work_in_hand(
    tmp_path: Path, first: signal.Signals, second: signal.Signals, status: int
) -> None:
    with running(tmp_path, ENDLESS_WORK) as program:
        program.wait_for("busy")
        program.send(first)
        time.sleep(0.3)
        begin = program.send(second)

        assert program.wait() == status
        assert time.monotonic() - begin < MARGIN
        assert program.out == ["busy", "cancelled"]


SHIELDED = """
    async def shielded():
        with trio.CancelScope(shield=True):
            say("ready")
            await trio.sleep_forever()

    app(Child(shielded, stop_within={within}), stop_within={within})
"""


def test_third_signal_ends_the_process_on_the_spot(tmp_path: Path) -> None:
    with running(tmp_path, SHIELDED.format(within=20)) as program:
        program.wait_for("ready")
        program.send()
        time.sleep(0.2)
        program.send()
        time.sleep(0.2)
        begin = program.send()

        assert program.wait() == 143
        assert time.monotonic() - begin < MARGIN


def test_second_signal_ends_even_what_ignores_it(tmp_path: Path) -> None:
    with running(tmp_path, SHIELDED.format(within=20)) as program:
        program.wait_for("ready")
        program.send()
        time.sleep(0.2)
        begin = program.send()

        assert program.wait() == 143
        assert time.monotonic() - begin < GUARD + MARGIN


def test_second_signal_does_not_postpone_the_end(tmp_path: Path) -> None:
    with running(tmp_path, SHIELDED.format(within=0.5)) as program:
        program.wait_for("ready")
        begin = program.send()
        time.sleep(1.6)
        program.send()

        assert program.wait() in (3, 143)
        assert time.monotonic() - begin < 0.5 + GUARD + 0.3


@pytest.mark.parametrize(("signals", "status"), [(1, 0), (2, 143)])
def test_signal_before_the_loop_turns_is_not_lost(
    tmp_path: Path, signals: int, status: int
) -> None:
    code = f"""
        late = trio.run

        def after_a_signal(*args, **options):
            for _ in range({signals}):
                os.kill(os.getpid(), signal.SIGTERM)
            return late(*args, **options)

        trio.run = after_a_signal
        app(idle)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == status
        assert program.out == []


def test_signal_in_the_moment_of_readiness_is_no_failure(tmp_path: Path) -> None:
    code = """
        async def eager(*, task_status):
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(3):
                await trio.lowlevel.checkpoint()
            task_status.started()
            await trio.sleep_forever()

        app(eager)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert "ERROR" not in program.err


def test_signal_while_the_loop_ends_is_no_failure(tmp_path: Path) -> None:
    # A system task is the last to go, when nothing can be scheduled any more.
    code = """
        async def last():
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(5, shield=True):
                    await trio.sleep(0.2)
                    os.kill(os.getpid(), signal.SIGTERM)

        async def job():
            trio.lowlevel.spawn_system_task(last)
            await trio.sleep(0.05)

        app(job)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert "Traceback" not in program.err


def test_signal_after_the_loop_has_ended_is_no_failure(tmp_path: Path) -> None:
    code = """
        real = trio.run

        def then_a_signal(*args, **options):
            status = real(*args, **options)
            os.kill(os.getpid(), signal.SIGTERM)
            return status

        async def job():
            pass

        trio.run = then_a_signal
        app(job)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert "Traceback" not in program.err


def test_crash_loop_ends_with_one_readable_story(tmp_path: Path) -> None:
    code = """
        from trio_services import Backoff

        async def connect():
            raise ConnectionError("database is down")

        async def sync():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.sleep_forever()

        app(Child(sync, backoff=Backoff(initial=0.01, jitter=0)), idle)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 1
        assert "ExceptionGroup" not in program.err
        assert program.err.count("Traceback") == 1
        last = program.err.rstrip().splitlines()[-2:]
        assert "app gave up: more restarts than max_restarts allows" in last[0]
        assert "app/sync: ConnectionError: database is down (program.py:" in last[1]
        assert len(program.err.splitlines()) < 50


def test_critical_failure_ends_with_status_1_and_stops_the_others(tmp_path: Path) -> None:
    code = """
        async def polite():
            try:
                await trio.sleep_forever()
            finally:
                say("closed")

        async def fatal():
            await trio.sleep(0.1)
            raise ValueError("fatal")

        app(polite, Child(fatal, restart="never"))
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 1
        assert program.out == ["closed"]


def test_failure_at_a_stop_ends_with_status_1_and_names_it(tmp_path: Path) -> None:
    code = """
        async def rude():
            try:
                say("ready")
                await trio.sleep_forever()
            finally:
                raise ValueError("cannot close")

        async def polite():
            try:
                await trio.sleep_forever()
            finally:
                say("closed")

        app(rude, polite)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        program.send()

        assert program.wait() == 1
        assert program.out == ["ready", "closed"]
        assert "app/rude: ValueError: cannot close" in program.err
        assert "ExceptionGroup" not in program.err


def test_swallower_is_named_with_its_stack_and_ended(tmp_path: Path) -> None:
    code = """
        async def swallower():
            say("ready")
            while True:
                try:
                    await trio.sleep(0.05)
                except trio.Cancelled:
                    with trio.CancelScope(shield=True):
                        await trio.sleep(0.05)

        app(Child(swallower, stop_within=0.5), stop_within=0.5)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        begin = program.send()

        assert program.wait() == 3
        assert time.monotonic() - begin < 0.5 + GUARD + MARGIN
        assert "app/swallower: ignores its cancellation" in program.err
        assert re.search(r"program.py\", line \d+, in swallower", program.err)
        assert "app/swallower is stopping" in program.err


def test_service_that_was_overdue_when_others_were_restarted_ends_the_process_with_status_3(
    tmp_path: Path,
) -> None:
    code = """
        async def broken():
            await trio.sleep(0.1)
            raise ValueError("broken")

        async def deaf():
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1.3)

        children = [Child(deaf, stop_within=0), Child(broken, stop_within=0)]
        app(Supervisor("pair", children, strategy="one_for_all"))
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 3
        assert "app/pair/deaf: ignores its cancellation" in program.err
        assert "Guard" not in program.err  # it ended by itself


def test_blocked_loop_is_ended_with_the_stack(tmp_path: Path) -> None:
    code = """
        async def blocking():
            say("ready")
            time.sleep(60)

        app(Child(blocking, stop_within=0.5), stop_within=0.5)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        begin = program.send()

        assert program.wait() == 3
        assert time.monotonic() - begin < 0.5 + GUARD + MARGIN
        assert "app/blocking" in program.err
        assert re.search(r"program.py\", line \d+ in blocking", program.err)


def test_loop_that_is_blocked_at_the_stop_is_ended(tmp_path: Path) -> None:
    code = """
        async def blocking():
            try:
                say("ready")
                await trio.sleep_forever()
            finally:
                time.sleep(60)

        app(Child(blocking, stop_within=0.2), stop_within=0.2)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        begin = program.send()

        assert program.wait() == 3
        assert time.monotonic() - begin < 0.2 + GUARD + MARGIN


def test_blocked_loop_is_ended_after_a_failure_too(tmp_path: Path) -> None:
    code = """
        async def blocking():
            try:
                await trio.sleep_forever()
            finally:
                time.sleep(60)

        async def fatal():
            await trio.sleep(0.1)
            raise ValueError("fatal")

        app(Child(blocking, stop_within=0.2), Child(fatal, restart="never"), stop_within=0.2)
    """
    with running(tmp_path, code) as program:
        begin = time.monotonic()

        assert program.wait() == 3
        assert time.monotonic() - begin < 0.2 + GUARD + 2  # and the start of an interpreter


def test_process_whose_interpreter_lock_is_held_at_the_stop_is_ended(tmp_path: Path) -> None:
    code = """
        import ctypes

        async def holding():
            try:
                say("ready")
                await trio.sleep_forever()
            finally:
                ctypes.PyDLL(None).usleep(60_000_000)

        app(Child(holding, stop_within=0.2), stop_within=0.2)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        begin = program.send()

        assert program.wait() != 0
        assert time.monotonic() - begin < 0.2 + GUARD + MARGIN
        assert re.search(r"program.py\", line \d+ in holding", program.err)


def test_process_in_a_catastrophic_regex_is_ended(tmp_path: Path) -> None:
    code = """
        import re

        async def matching():
            say("ready")
            re.match(r"(a+)+$", "a" * 60 + "b")

        app(Child(matching, stop_within=0.2), stop_within=0.2)
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        time.sleep(0.2)
        begin = program.send()

        assert program.wait() != 0
        assert time.monotonic() - begin < 0.2 + GUARD + MARGIN


def test_exit_in_a_service_stops_in_order_and_has_its_status(tmp_path: Path) -> None:
    code = """
        def polite(name):
            async def service():
                try:
                    await trio.sleep_forever()
                finally:
                    say(f"{name} closed")
            return service

        async def exiting():
            await trio.sleep(0.1)
            sys.exit(7)

        app(Child(polite("db"), name="db"), Child(polite("sync"), name="sync", after="db"), exiting)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 7
        assert program.out == ["sync closed", "db closed"]
        assert "Traceback" not in program.err


def test_exit_with_a_message_tells_it(tmp_path: Path) -> None:
    code = """
        async def exiting():
            sys.exit("no such table: orders")

        app(exiting)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 1
        assert "no such table: orders" in program.err


def test_exit_without_a_failure_has_status_0(tmp_path: Path) -> None:
    code = """
        async def exiting():
            await trio.sleep(0.05)
            sys.exit()

        app(exiting, idle)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0


def test_plan_over_its_budget_ends_with_status_2_and_one_line(tmp_path: Path) -> None:
    with running(tmp_path, "app(Child(idle, stop_within=5))") as program:
        assert program.wait() == 2
        (line,) = program.err.splitlines()
        assert line.startswith("app may need 5 s to stop, but has 1 s: lower the stop_within")
        assert program.out == []


def test_plan_that_a_companion_spoils_ends_with_status_2(tmp_path: Path) -> None:
    code = """
        def companion(host):
            return Child(idle, name="idle")

        run(Supervisor("app", [idle]), companions=[companion])
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 2
        assert "two children are named 'idle'" in program.err.splitlines()[0]
        assert "Traceback" not in program.err


def test_everything_is_gone_after_run(tmp_path: Path) -> None:
    code = """
        import gc, subprocess

        def state():
            gc.collect()
            return (
                sorted(os.listdir("/proc/self/fd")),
                [t.name for t in threading.enumerate() if "Trio thread" not in t.name],
                open("/proc/self/task/%d/children" % os.getpid()).read(),
                [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
            )

        async def threaded():
            await trio.to_thread.run_sync(time.sleep, 0.01)

        async def socket():
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            async with listener:
                await trio.sleep_forever()

        async def child():
            await trio.run_process(["sleep", "60"])

        async def boss():
            await trio.sleep(0.3)
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()

        before = state()
        app(threaded, socket, child, boss)
        after = state()
        say("same" if before == after else f"{before} {after}")
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert program.out == ["same"]


def test_watchdog_is_off_after_run(tmp_path: Path) -> None:
    code = """
        async def boss():
            os.kill(os.getpid(), signal.SIGTERM)
            await trio.sleep_forever()

        app(boss, stop_within=0)
        time.sleep(2.5)
        say("alive")
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert program.out == ["alive"]


def test_run_may_be_called_again(tmp_path: Path) -> None:
    code = """
        async def job():
            say("job")

        app(job)
        app(job)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert program.out == ["job", "job"]


def test_closed_standard_error_does_not_matter(tmp_path: Path) -> None:
    with running(tmp_path, "app(idle)", stderr="closed") as program:
        program.wait_for("ready")
        program.send()

        assert program.wait() == 0


def test_endless_budget_does_not_keep_a_stop_from_beginning(tmp_path: Path) -> None:
    with running(tmp_path, "run(idle, config=HostSettings(stop_within=1e12))") as program:
        program.wait_for("ready")
        program.send()

        assert program.wait() == 0
        assert "Traceback" not in program.err


def test_thread_that_a_service_left_behind_does_not_keep_the_process(tmp_path: Path) -> None:
    code = """
        async def leaky():
            threading.Thread(target=time.sleep, args=(20,)).start()
            say("ready")
            await trio.sleep_forever()

        sys.exit(app(leaky, stop_within=0.2))
    """
    with running(tmp_path, code) as program:
        program.wait_for("ready")
        begin = program.send()

        program.wait(0.2 + GUARD + 2 * MARGIN)
        assert time.monotonic() - begin < 0.2 + GUARD + MARGIN


def test_service_may_stop_the_host_while_it_starts(tmp_path: Path) -> None:
    code = """
        def stopping(host):
            async def companion(*, task_status):
                host.request_stop()
                task_status.started()
                await trio.sleep_forever()
            return Child(companion, name="stopping")

        run(Supervisor("app", [idle]), companions=[stopping])
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 0
        assert program.out == []
        assert "ERROR" not in program.err


def test_deaf_service_below_a_supervisor_that_gave_up_does_not_keep_the_process(
    tmp_path: Path,
) -> None:
    code = """
        async def deaf():
            while True:
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    pass

        async def crash():
            raise ValueError("broken")

        part = Supervisor("part", [deaf, Child(crash, restart="never")], stop_within=0.1)
        app(Child(part), stop_within=0.2)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 3
        assert "app/part/deaf: ignores its cancellation" in program.err


def test_failed_clean_up_counts_although_an_exit_was_asked_for(tmp_path: Path) -> None:
    code = """
        async def bad():
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cannot close")

        async def exiting():
            await trio.sleep(0.05)
            sys.exit(0)

        app(bad, exiting)
    """
    with running(tmp_path, code) as program:
        assert program.wait() == 1
        assert "gives up" not in program.err
