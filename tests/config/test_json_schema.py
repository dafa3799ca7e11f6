"""The JSON Schema takes what the loader takes, and refuses what no table may hold."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from trio_services import Secret
from trio_services.config import json_schema
from trio_services.config._json_schema import _value

from .cases import CASES, GOOD, Case, added

EXAMPLES = Path(__file__).parents[2] / "examples"

VALIDATOR: Any = jsonschema.Draft7Validator(json_schema())

EVERYTHING = """
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
options = { pause = "5s", deep = { any = [1, "x"] } }
after = ["deliver"]
restart = "always"
backoff = { initial = 0, factor = 3, cap = "1m", jitter = 0, reset_after = "5s" }
breaker = { failures = 3, within = "1m", reset_after = 2.5, cap = 9, give_up_after = 4 }
start_within = "5s"
critical = false
[workers.deliver]
queue = "parcels"
handler = "depot.code:deliver"
count = 8
timeout = "1.5 s"
rate = { count = 5 }
retry = { attempts = 3, on = "depot.code:is_transient", backoff = { initial = "10ms" } }
feeds = ["parcels"]
[schedules.report]
call = "depot.code:report"
cron = "@daily"
timezone = "Europe/Berlin"
"""


def errors(text: str) -> list[Any]:
    return list(VALIDATOR.iter_errors(tomllib.loads(text)))


def test_schema_is_one() -> None:
    jsonschema.Draft7Validator.check_schema(json.loads(json.dumps(json_schema())))


@pytest.mark.parametrize(
    "text",
    [GOOD, EVERYTHING, *(path.read_text() for path in EXAMPLES.rglob("*.toml"))],
)
def test_good_file_is_taken(text: str) -> None:
    assert errors(text) == []


# What is wrong with one key by itself, and neither between keys nor with the code behind it.
_OF_A_KEY = re.compile(
    r"(unknown key|missing; expected|not where a secret is|is not (true or false|a whole number|"
    r"text|an array|a table|a duration|one of|a name)|"
    r"is too (small|large); expected (at (least|most) |more than )\d|"
    r"does not name code|is relative|nested more than)"
)


def parsed(case: Case) -> bool:
    try:
        tomllib.loads(case.text)
    except (ValueError, RecursionError):
        return False
    return True


@pytest.mark.parametrize(
    "case", [case for case in CASES if parsed(case)], ids=lambda case: case.name
)
def test_bad_file_is_refused_where_a_key_is_wrong_by_itself(case: Case) -> None:
    of_keys = [line for line in case.lines if _OF_A_KEY.search(line) and ".options." not in line]

    assert bool(errors(case.text)) == bool(of_keys)


@pytest.mark.parametrize("token", ['{ env = "A" }', '{ file = "a" }'])
def test_secret_says_where_it_is(token: str) -> None:
    schema: Any = jsonschema.Draft7Validator(_value(Secret, {}, []))

    assert schema.is_valid(tomllib.loads(f"x = {token}")["x"])
    for wrong in ("text", {}, {"env": ""}, {"env": "A", "file": "a"}, {"text": "x"}):
        assert not schema.is_valid(wrong)


def test_keys_are_described_for_people() -> None:
    capacity: Any = json_schema()["definitions"]["QueueTable"]["properties"]["capacity"]

    assert capacity == {
        "type": "integer",
        "minimum": 1,
        "description": "How many items may wait. In items.",
        "default": 100,
    }


def test_default_of_a_duration_is_a_text() -> None:
    stop_within: Any = json_schema()["definitions"]["HostTable"]["properties"]["stop_within"]

    assert stop_within["default"] == "30s"
    assert errors(added("[admin]\nbind = 5")) != []
