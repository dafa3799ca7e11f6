"""The producer: reads the files that are dropped in a folder."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import attrs
import trio
from attrs import validators
from loguru import logger

from trio_services import Service, WorkQueue, every

from .ledger import Ledger
from .orders import File, Row, rows_of


@attrs.frozen
class WatchOptions:
    """Where to look, and how often."""

    folder: Path
    ledger: Path
    look_every: float = attrs.field(default=1.0, validator=validators.gt(0))
    """Seconds between two looks at the folder."""
    untouched_for: float = attrs.field(default=0.5, validator=validators.ge(0))
    """Seconds since the last change of a file, after which it is taken to be complete."""


class WatchFolder(Service):
    """Put every row of every CSV file that is dropped in the folder on the queue.

    A file is read again after a restart unless all of its rows were settled: what was still in
    memory is not lost, and what is in the ledger already is not entered twice.
    """

    def __init__(self, options: WatchOptions, rows: WorkQueue[Row]) -> None:
        self.options = options
        self.rows = rows
        self.ledger = Ledger(options.ledger)
        self._seen: dict[str, float] = {}  # when each file that was read had last been changed

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look at the folder again and again."""
        folder = trio.Path(self.options.folder)
        await folder.mkdir(parents=True, exist_ok=True)
        await self.ledger.prepare()
        task_status.started()
        async for _ in every(self.options.look_every):
            for path in sorted(await folder.glob("*.csv")):
                try:
                    changed = (await path.stat()).st_mtime
                    complete = time.time() - changed >= self.options.untouched_for
                    if complete and self._seen.get(path.name) != changed:
                        self._seen[path.name] = changed
                        content = await path.read_bytes()
                        await self._read(path.name, content)
                except OSError as error:  # it may have been taken away again
                    logger.error("cannot read {}: {}", path.name, error)

    async def _read(self, name: str, content: bytes) -> None:
        file = File(name, hashlib.sha256(content).hexdigest())
        if await self.ledger.is_finished(file):
            return
        count = 0
        for row in rows_of(file, content):
            file.open_lines.add(row.line)
            await self.rows.put(row)
            count += 1
        file.all_read = True
        if file.finished:  # the last row was settled before it was known to be the last
            await self.ledger.finish(file)
        logger.info("{}: {} rows", name, count)
