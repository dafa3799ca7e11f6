from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import pytest

import trio_services

ROOT = Path(trio_services.__file__).parents[1]

# Of the contract's list, what this version has.
NAMES = {
    "Backoff", "Batch", "Breaker", "BreakerOpen", "BulkheadFull", "Child", "ConfigError",
    "Container", "Discard", "DisposalTimeout", "HOST", "Health", "Host", "HostSettings",
    "InjectionError", "JOB", "Limit", "PlanError", "QueueClosed", "QueueFull", "Rate",
    "RestartLimitExceeded", "Retry", "RetryLater", "SERVICE", "Schedule", "Secret",
    "Service", "ServicesError", "StartFailed", "StartTimeout", "StopFailed", "StopOverdue",
    "Supervisor",
    "Tick", "TimedOut", "UnknownService", "WorkQueue", "WorkerProcessDied", "Workers", "at",
    "current_service", "events", "every", "graceful", "open_host", "open_supervisor", "run",
    "serve", "service",
}  # fmt: skip


def in_a_fresh_python(code: str) -> list[Any]:
    """What a program prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return cast("list[Any]", json.loads(done.stdout))


def test_importing_the_package_imports_nothing_that_is_large() -> None:
    loaded = in_a_fresh_python(
        "import json, sys, trio_services; print(json.dumps(sorted(sys.modules)))"
    )
    roots = {name.partition(".")[0] for name in loaded}
    large = {
        "trio",
        "loguru",
        "attrs",
        "attr",
        "cattrs",
        "click",
        "starlette",
        "hypercorn",
        "dishka",
        "psycopg",
    }
    assert roots & large == set()
    assert [name for name in loaded if name.startswith("trio_services.")] == [
        "trio_services._version"
    ]


def test_room_is_imported_when_it_is_first_used() -> None:
    loaded = in_a_fresh_python(
        "import json, sys; from trio_services import Backoff\n"
        "print(json.dumps([name in sys.modules for name in"
        " ('trio_services.resilience', 'trio_services.supervision', 'loguru')]))"
    )
    assert loaded == [True, False, False]


def test_services_are_run_without_the_parts_of_the_command() -> None:
    loaded = in_a_fresh_python(
        "import json, sys; from trio_services import Supervisor, Workers, every, open_supervisor\n"
        "large = ('click', 'starlette', 'hypercorn', 'cattrs', 'loguru', 'dishka', 'psycopg')\n"
        "print(json.dumps([name for name in large if name in sys.modules]))"
    )
    assert loaded == []


@pytest.mark.parametrize("name", sorted(NAMES))
def test_public_name_is_there_and_comes_from_its_room(name: str) -> None:
    assert name in dir(trio_services)
    value = getattr(trio_services, name)
    rooms = (
        "di", "errors", "host", "lifecycle", "queues", "resilience", "secrets", "supervision",
        "timers",
    )  # fmt: skip
    homes = [import_module(f"trio_services.{room}") for room in rooms]
    if name in ("Service", "service"):
        assert callable(value)
        assert value.__module__.startswith("trio_services.")
    else:
        assert value in [getattr(home, name) for home in homes if hasattr(home, name)]


def test_everything_public_in_dir_is_expected_and_there() -> None:
    found = in_a_fresh_python(
        "import json, trio_services\n"
        "names = [name for name in dir(trio_services) if not name.startswith('_')]\n"
        "for name in names: getattr(trio_services, name)\n"
        "print(json.dumps(names))"
    )
    assert set(found) >= NAMES
    assert set(found) - NAMES <= {"TYPE_CHECKING", "import_module"}


@pytest.mark.parametrize("first", ["Service", "Supervisor", "Workers", "every", "run"])
def test_service_is_the_decorator_whatever_was_imported_before(first: str) -> None:
    # There is a module of the same name, which the import system likes to put in its place.
    kinds = in_a_fresh_python(
        f"import json; from trio_services import {first}; from trio_services import service\n"
        "print(json.dumps([type(service).__name__]))"
    )
    assert kinds == ["function"]


def test_service_is_still_the_decorator_after_another_room_was_imported() -> None:
    kinds = in_a_fresh_python(
        "import json, trio_services\n"
        "from trio_services import service as before\n"
        "import trio_services.supervision, trio_services.queues\n"
        "from trio_services import service as after\n"
        "print(json.dumps([before is after, type(trio_services.service).__name__]))"
    )
    assert kinds == [True, "function"]


def test_name_is_looked_up_once() -> None:
    same = in_a_fresh_python(
        "import json, trio_services; first = trio_services.Backoff\n"
        "print(json.dumps(['Backoff' in vars(trio_services), first is trio_services.Backoff]))"
    )
    assert same == [True, True]


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'trio_services' has no attribute 'Manager'"):
        _ = trio_services.Manager
    assert not hasattr(trio_services, "Manager")


def test_unknown_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="Manager"):
        exec("from trio_services import Manager")


def test_package_has_a_version_and_is_typed() -> None:
    assert trio_services.__version__.count(".") >= 1
    assert (Path(trio_services.__file__).parent / "py.typed").exists()
