"""From tables to an application: what the code that a configuration names is given."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_services import (
    Backoff,
    Batch,
    Breaker,
    Limit,
    Rate,
    Retry,
    Schedule,
    Service,
    Workers,
)
from trio_services.config import Application, build, load
from trio_services.config._durations import Seconds
from trio_services.config._schema import ScheduleTable, WorkersTable
from trio_services.telemetry import LogSettings

from .cases import GOOD, added, service
from .conftest import Build, Refused, write


def child(application: Application, name: str) -> Any:
    """What the child of a name runs."""
    (found,) = [child for child in application.tree.children if child.name == name]
    return found.service


def test_application_is_what_the_file_says(built: Build) -> None:
    application = built(
        """
        [host]
        name = "depot"
        stop_within = "2m"
        imports = ["depot"]
        max_restarts = { count = 2, per = "10s" }
        [log]
        level = "debug"
        format = "json"
        levels = { report = "error" }
        [admin]
        bind = "unix:run/admin"
        [queues.parcels]
        capacity = 7
        when_full = "reject"
        [services.watch]
        use = "depot.code:watch"
        options = { pause = "5s" }
        after = ["deliver"]
        restart = "always"
        backoff = { initial = 0, factor = 3, cap = "1m", jitter = 0, reset_after = "5s" }
        breaker = { failures = 3, within = "1m", reset_after = 2, cap = 9, give_up_after = 4 }
        start_within = "5s"
        stop_within = "1m"
        stale_after = "2m"
        critical = false
        retry_start = false
        [workers.deliver]
        queue = "parcels"
        handler = "depot.code:deliver"
        on_dead = "depot.code:bury"
        count = 8
        timeout = "30s"
        retry = { attempts = 3, on = "depot.code:is_transient", backoff = { initial = "10ms" } }
        [schedules.report]
        call = "depot.code:report"
        every = "1h"
        start = "1m"
        jitter = "5s"
        timeout = "10s"
        retry = {}
        """
    )

    watch, deliver, report = application.tree.children
    code = sys.modules["depot.code"]
    assert application.tree.name == "depot"
    assert application.tree.max_restarts == Limit(2, per=10)
    assert application.stop_within == 120
    assert application.log == LogSettings(level="debug", format="json", levels={"report": "error"})
    assert application.admin == "unix:run/admin"
    assert (watch.name, watch.after, watch.restart) == ("watch", ("deliver",), "always")
    assert watch.backoff == Backoff(initial=0, factor=3, cap=60, jitter=0, reset_after=5)
    assert watch.breaker == Breaker(3, within=60, reset_after=2, cap=9, give_up_after=4)
    assert (watch.start_within, watch.stop_within, watch.critical) == (5, 60, False)
    assert (watch.stale_after, watch.retry_start) == (120, False)
    parcels = application.queues["parcels"]
    assert (parcels.name, parcels.capacity, parcels.when_full) == ("parcels", 7, "reject")
    assert deliver.service == Workers(
        parcels,
        code.deliver,
        on_dead=code.bury,
        count=8,
        timeout=30,
        retry=Retry(3, Backoff(initial=0.01), on=code.is_transient),
    )
    assert report.service == Schedule(
        code.report, every=3600, start=60, jitter=5, timeout=10, retry=Retry()
    )


def test_workers_are_what_the_file_says(built: Build) -> None:
    application = built(
        """
        [host]
        imports = ["depot"]
        [queues.parcels]
        when_full = "drop_oldest"
        [queues.lists]
        when_full = "drop_newest"
        [workers.in_order]
        queue = "parcels"
        handler = "depot.code:deliver"
        rate = { count = 100, per = "1m" }
        breaker = { failures = 3, within = "1m", reset_after = 2, cap = 9, give_up_after = 4 }
        key = "depot.code:city_of"
        fallback = "depot.code:bury"
        on_left = "depot.code:deliver"
        drain = true
        feeds = ["lists"]
        [workers.packed]
        queue = "lists"
        handler = "depot.code:pack"
        batch = { size = 50, within = "200ms" }
        isolation = "thread"
        [workers.crunched]
        queue = "lists"
        handler = "depot.code:pack"
        isolation = "process"
        rate = { count = 5 }
        batch = { size = 2 }
        """
    )

    in_order, packed, crunched = application.tree.children
    parcels, lists = application.queues["parcels"], application.queues["lists"]
    code = sys.modules["depot.code"]
    assert (parcels.when_full, lists.when_full) == ("drop_oldest", "drop_newest")
    assert in_order.service == Workers(
        parcels,
        code.deliver,
        rate=Rate(100, per=60),
        breaker=Breaker(3, within=60, reset_after=2, cap=9, give_up_after=4),
        key=code.city_of,
        fallback=code.bury,
        on_left=code.deliver,
        drain=True,
        feeds=lists,
    )
    assert in_order.breaker is None  # it is around the handler, and not around the pool
    assert packed.service == Workers(
        lists, code.pack, batch=Batch(50, within=0.2), isolation="thread"
    )
    assert crunched.service == Workers(
        lists, code.pack, batch=Batch(2), isolation="process", rate=Rate(5, per=1)
    )


def test_schedules_are_what_the_file_says(built: Build) -> None:
    application = built(
        """
        [host]
        imports = ["depot"]
        [schedules.nightly]
        call = "depot.code:report"
        cron = "30 2 * * *"
        timezone = "Europe/Berlin"
        jitter = "5m"
        overlap = "queue"
        missed = "all"
        timeout = "1h"
        retry = { attempts = 2, on = "depot.code:is_transient" }
        [schedules.steady]
        call = "depot.code:report"
        every = "10s"
        overlap = "parallel"
        missed = "skip"
        """
    )

    nightly, steady = application.tree.children
    code = sys.modules["depot.code"]
    assert nightly.service == Schedule(
        code.report,
        cron="30 2 * * *",
        timezone="Europe/Berlin",
        jitter=300,
        overlap="queue",
        missed="all",
        timeout=3600,
        retry=Retry(2, on=code.is_transient),
    )
    assert steady.service == Schedule(code.report, every=10, overlap="parallel", missed="skip")


def test_every_key_of_workers_and_schedules_is_built_from() -> None:
    """A key that a table gains is one that the two tests above have to learn."""
    texts = Path(__file__).read_text(encoding="utf-8")
    for table in (WorkersTable, ScheduleTable):
        for field in {field.name for field in attrs.fields(table)} - {"options", "leader_only"}:
            assert f"\n        {field} = " in texts, field


def test_what_the_file_leaves_open_is_left_to_the_framework(built: Build) -> None:
    application = built('[services.report]\nuse = "depot.code:report"\n[host]\nimports=["depot"]')

    (report,) = application.tree.children
    assert (report.restart, report.backoff, report.start_within) == (None, None, None)
    assert (report.stop_within, report.critical, report.after) == (None, True, ())
    assert (report.breaker, report.stale_after, report.retry_start) == (None, None, True)
    assert application.log == LogSettings()
    assert application.admin is None


def test_each_start_makes_a_fresh_instance_of_a_class(built: Build) -> None:
    make = child(built(GOOD), "sort")

    first, second = make(), make()

    assert type(first).__name__ == "Sort"
    assert first is not second


def test_queue_is_given_by_the_name_of_the_parameter(built: Build) -> None:
    application = built(GOOD)

    assert child(application, "sort")().parcels is application.queues["parcels"]
    assert child(application, "deliver").queue is application.queues["parcels"]


def test_paths_are_relative_to_the_file_and_not_to_where_it_is_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = GOOD.replace("batch = 5", 'spare = "/srv/../spare"')
    write(text)
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")

    application = build(load("../config.toml", environment={}))

    options = child(application, "sort")().options
    assert options.folder.resolve() == folder / "in"
    assert options.folder.is_absolute()
    assert options.spare == Path("/srv/../spare")


def test_code_beside_the_file_is_found_from_wherever_it_is_run(folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "trio_services", "check", folder / "config.toml"],
        cwd="/",
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_folder_is_searched_once_and_first(built: Build, folder: Path) -> None:
    built(GOOD)
    built(GOOD)

    assert sys.path[0] == str(folder)
    assert sys.path.count(str(folder)) == 1


def test_folder_that_everybody_can_write_to_is_not_searched(
    refused: Refused, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    folder.chmod(0o777)

    line = refused(GOOD)[0]

    assert line == (
        "config.toml:services.sort.use: there is no module depot where Python looks; "
        "the file's own folder is left out, since everybody can write to it"
    )


def test_async_function_gets_its_options(built: Build) -> None:
    watch = child(
        built(service('use = "depot.code:watch"\noptions = { pause = "2m", to = "all" }')), "extra"
    )

    assert isinstance(watch, partial)
    options: Any = watch.keywords["options"]
    assert (options.pause, options.to) == (120.0, "all")


def test_decorated_service_gets_its_options(built: Build) -> None:
    patrol = child(built(service('use = "depot.code:patrol"\noptions = { pause = 1 }')), "extra")

    assert isinstance(patrol(), Service)


def test_service_value_is_taken_as_it_is(built: Build, folder: Path) -> None:
    (folder / "depot" / "value.py").write_text(
        "from .code import ReportOptions, patrol\nwatchman = patrol(ReportOptions(1.0))\n"
    )

    assert isinstance(child(built(service('use = "depot.value:watchman"')), "extra"), Service)


def test_code_that_needs_nothing_is_taken_as_it_is(built: Build) -> None:
    application = built(GOOD)

    assert child(application, "report").call is sys.modules["depot.code"].report


def test_handler_gets_what_it_asks_for_beside_its_item(built: Build) -> None:
    application = built(
        GOOD,
        "workers.deliver.handler=depot.code:deliver_with",
        "workers.deliver.options={ pause = 1 }",
    )

    handler = child(application, "deliver").handler
    assert sorted(handler.keywords) == ["options", "parcels"]
    assert handler.keywords["parcels"] is application.queues["parcels"]


def test_handler_that_is_a_class_is_made_once(built: Build) -> None:
    application = built(
        GOOD,
        "workers.deliver.handler=depot.code:Deliver",
        "workers.deliver.on_dead=depot.code:bury",
        "workers.deliver.options={ pause = 1 }",
    )

    assert child(application, "deliver").handler.options.pause == 1


def test_options_that_two_classes_share_are_checked_by_both_and_told_once(
    refused: Refused,
) -> None:
    lines = refused(
        GOOD,
        "workers.deliver.handler=depot.code:Deliver",
        "workers.deliver.on_dead=depot.code:bury_with",
        "workers.deliver.options={ pause = 'long', to = 5 }",
    )

    assert [line.split(": ")[0] for line in lines] == [
        "--set workers.deliver.options:pause",
        "--set workers.deliver.options:to",
    ]


def test_parameters_with_defaults_may_stay_unfilled(built: Build) -> None:
    audit = child(built(service('use = "depot.code:Audit"')), "extra")()

    assert (audit.options.first, audit.options.last, audit.times) == (0, 9, 3)
    assert audit.spare is None
    assert audit.parcels.name == "parcels"


def test_failures_to_retry_may_be_an_exception(built: Build, folder: Path) -> None:
    (folder / "depot" / "errors.py").write_text("class Lost(Exception): pass\n")

    application = built(GOOD, "workers.deliver.retry.on=depot.errors:Lost")

    assert child(application, "deliver").retry.on is sys.modules["depot.errors"].Lost


def test_duration_in_options_is_seconds_for_attrs_and_dataclasses_alike(built: Build) -> None:
    application = built(
        service('use = "depot.code:watch"\noptions = { pause = "500ms" }'),
        "services.sort.options.pause=1h",
    )

    pauses: list[Seconds] = [
        child(application, "sort")().options.pause,
        child(application, "extra").keywords["options"].pause,
    ]
    assert pauses == [3600.0, 0.5]


def test_import_of_a_subpackage_alone_is_enough_for_it(built: Build, refused: Refused) -> None:
    text = GOOD.replace('imports = ["depot"]', 'imports = ["depot.code"]')
    built(text)

    (line,) = refused(text, "services.sort.use=depot:Sort")

    assert line.startswith('--set services.sort.use: "depot" is not in host.imports')


def test_code_of_the_framework_needs_no_import(refused: Refused) -> None:
    (line,) = refused(service('use = "trio_services:Service"'))

    assert (
        line == "config.toml:services.extra.use: trio_services:Service is abstract; define its run"
    )


def test_build_starts_nothing_and_can_be_repeated(built: Build) -> None:
    first, second = built(GOOD), built(GOOD)

    assert first.queues["parcels"] is not second.queues["parcels"]


def test_whole_budget_may_be_used(built: Build) -> None:
    application = built(added('[services.extra]\nuse = "depot.code:report"\nstop_within = 30'))

    assert application.tree.worst_stop == application.stop_within


def test_parameter_that_only_has_a_place_is_not_filled(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "places.py").write_text(
        "async def watch(options, /): ...\nasync def rest(options=None, /, *more, **most): ...\n"
    )

    (line,) = refused(
        GOOD, "services.sort.use=depot.places:watch", "schedules.report.call=depot.places:rest"
    )

    assert line == (
        "--set services.sort.use: depot.places:watch asks for `options`, which no configuration "
        "can give; give it a default, or take it from `options`"
    )


def test_partial_and_callable_instance_are_async_functions(built: Build, folder: Path) -> None:
    (folder / "depot" / "values.py").write_text(
        "from functools import partial\n"
        "from .code import Deliver, ReportOptions, deliver_with, watch\n"
        "daily = partial(watch, options=ReportOptions(1.0))\n"
        "van = Deliver(ReportOptions(1.0))\n"
    )

    application = built(
        GOOD,
        "schedules.report.call=depot.values:daily",
        "schedules.report.options={ pause = 9 }",
        "workers.deliver.handler=depot.values:van",
    )

    assert child(application, "report").call.keywords["options"].pause == 9
    assert child(application, "deliver").handler is sys.modules["depot.values"].van


def test_module_whose_attributes_fail_is_told(refused: Refused, folder: Path) -> None:
    (folder / "depot" / "lazy.py").write_text("def __getattr__(name):\n    raise OSError(name)\n")

    (line,) = refused(GOOD, "services.sort.use=depot.lazy:Sort")

    assert line.startswith("--set services.sort.use: looking for depot.lazy:Sort failed: OSError: ")
