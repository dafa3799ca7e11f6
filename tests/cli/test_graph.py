"""`graph`: the application as a drawing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import write
from .test_command_line import exit_status

CODE = '''\
from dataclasses import dataclass

from trio_services import Service, WorkQueue, service


class Watch(Service):
    """Watch the "in" folder.

    At length.
    """

    def __init__(self, orders: WorkQueue[str]) -> None: ...

    async def run(self) -> None: ...


class Silent(Service):
    async def run(self) -> None: ...


@service
async def patrol() -> None:
    """Go round <once> #1 a day."""


async def fill(item: str, bills: WorkQueue[str]) -> None:
    """Fill an order."""


@dataclass
class Bill:
    times: int = 1

    async def __call__(self, item: str) -> None: ...


async def report() -> None:
    """Tell how it goes."""
'''

CONFIG = """\
[host]
name = "shop"
imports = ["shopping"]
[queues.orders]
[queues.bills]
[services.watch]
use = "shopping:Watch"
after = ["fill"]
[services.silent]
use = "shopping:Silent"
[services.patrol]
use = "shopping:patrol"
[workers.fill]
queue = "orders"
handler = "shopping:fill"
after = ["bill", "silent"]
feeds = ["bills"]
[workers.bill]
queue = "bills"
handler = "shopping:Bill"
[schedules.report]
call = "shopping:report"
every = "1h"
"""


@pytest.fixture
def shop(folder: Path) -> None:
    (folder / "shopping.py").write_text(CODE)
    write(folder / "shop.toml", CONFIG)


@pytest.mark.usefixtures("shop")
def test_text_is_a_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("graph", "shop.toml") == 0
    assert (
        capsys.readouterr().out
        == """\
shop
├── watch   service   Watch the "in" folder.
│       after fill, puts to orders
├── silent  service   shopping:Silent
├── patrol  service   Go round <once> #1 a day.
├── fill    workers   Fill an order.
│       after bill and silent, takes from orders, puts to bills
├── bill    workers   shopping:Bill
│       takes from bills
└── report  schedule  Tell how it goes.
"""
    )


@pytest.mark.usefixtures("shop")
def test_dot_is_for_graphviz(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("graph", "shop.toml", "--format", "dot") == 0
    assert (
        capsys.readouterr().out
        == r"""digraph "shop" {
  rankdir=LR
  node [shape=box]
  "watch" [label="watch\nWatch the \"in\" folder."]
  "silent" [label="silent\nshopping:Silent"]
  "patrol" [label="patrol\nGo round <once> #1 a day."]
  "fill" [label="fill\nFill an order."]
  "bill" [label="bill\nshopping:Bill"]
  "report" [label="report\nTell how it goes."]
  "queue orders" [label="orders" shape=cylinder]
  "queue bills" [label="bills" shape=cylinder]
  "watch" -> "fill" [label=after style=dashed]
  "watch" -> "queue orders"
  "fill" -> "bill" [label=after style=dashed]
  "fill" -> "silent" [label=after style=dashed]
  "queue orders" -> "fill"
  "fill" -> "queue bills"
  "queue bills" -> "bill"
}
"""
    )


@pytest.mark.usefixtures("shop")
def test_mermaid_is_for_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("graph", "shop.toml", "--format=mermaid") == 0
    assert (
        capsys.readouterr().out
        == """\
flowchart LR
  s0["watch<br/>Watch the #quot;in#quot; folder."]
  s1["silent<br/>shopping:Silent"]
  s2["patrol<br/>Go round #lt;once#gt; #35;1 a day."]
  s3["fill<br/>Fill an order."]
  s4["bill<br/>shopping:Bill"]
  s5["report<br/>Tell how it goes."]
  q0[("orders")]
  q1[("bills")]
  s0 -. after .-> s3
  s0 --> q0
  s3 -. after .-> s4
  s3 -. after .-> s1
  q0 --> s3
  s3 --> q1
  q1 --> s4
"""
    )


@pytest.mark.parametrize("form", ["text", "dot", "mermaid"])
def test_database_is_drawn(folder: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "shopping.py").write_text(CODE)
    for url in ("embedded:var/db", "postgresql://host/shop"):
        more = f'after = ["database"]\n[database]\nurl = "{url}"\n'
        write(folder / "shop.toml", CONFIG + more)
        assert exit_status("graph", "shop.toml", "--format", form) == 0
        assert "Lends connections." in capsys.readouterr().out


@pytest.mark.usefixtures("shop")
def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("graph", "shop.toml", "--json") == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["name"] == "shop"
    assert printed["queues"] == ["orders", "bills"]
    assert printed["nodes"][3] == {
        "name": "fill",
        "kind": "workers",
        "code": "shopping:fill",
        "duty": "Fill an order.",
        "after": ["bill", "silent"],
        "takes_from": ["orders"],
        "puts_to": ["bills"],
        "needs": [],
    }
