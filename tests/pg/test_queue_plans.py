"""How claims read the tables: by the index, however much is in them."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from trio_services.pg import _claims

from .queueing import empty_tables
from .server import Server


@pytest.mark.parametrize("analyzed", [True, False])
def test_claim_reads_by_the_index_with_many_waiting(server: Server, analyzed: bool) -> None:
    empty_tables(server)
    server.execute(
        "insert into trio_services.ready (queue, rank, version, payload)"
        " select 'q' || n % 3, 0, 1, '1' from generate_series(1, 100000) as n"
    )
    server.execute(
        "insert into trio_services.lease (queue, worker, expires_at) values ('q1', '', 'infinity')"
    )
    if analyzed:
        server.execute("analyze trio_services.ready")
    (lease,) = server.execute("select id from trio_services.lease")[0]
    parameters = {"lease": lease, "queue": "q1", "count": 50}
    with psycopg.connect(server.url) as connection:
        query = f"explain (analyze, format json) {_claims._CLAIM}".encode()
        row = connection.execute(query, parameters).fetchone()
    assert row is not None
    plan = json.dumps(row[0])
    assert "Seq Scan" not in plan.replace("Seq Scan on lease", "")
    assert '"Relation Name": "ready"' in plan
    scans = [node for node in _nodes(row[0][0]["Plan"]) if node.get("Relation Name") == "ready"]
    kinds = {node["Node Type"] for node in scans}
    assert kinds == {"Index Scan", "Tid Scan", "ModifyTable"}
    assert max(node["Actual Rows"] for node in scans) <= 51
    server.execute("truncate trio_services.ready")


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    found = [plan]
    for inner in plan.get("Plans", []):
        found += _nodes(inner)
    return found
