"""A queue between a producer and workers; the program ends by itself when all pages are done."""

from collections import Counter

import trio

from trio_services import (
    Backoff,
    Child,
    Discard,
    Retry,
    Supervisor,
    TimedOut,
    Workers,
    WorkQueue,
    run,
)

pages = WorkQueue[str]("pages", capacity=10)
visits = Counter[str]()


async def find_pages() -> None:
    """Put all pages on the queue, as fast as the workers make room."""
    for number in range(1, 41):
        await pages.put(f"/page/{number}")
    pages.close()


async def fetch(page: str) -> None:
    """Fetch a page of an imaginary site, some of which are difficult."""
    visits[page] += 1
    await trio.sleep(0.01)
    if page == "/page/7" and visits[page] < 3:
        raise ConnectionError("connection reset")  # the third attempt succeeds
    if page == "/page/13":
        raise Discard("moved away")
    if page == "/page/21":
        raise ValueError("not a page at all")  # which no further attempt will change
    if page == "/page/34":
        await trio.sleep_forever()  # until the time-out, at each attempt


retry = Retry(attempts=3, backoff=Backoff(initial=0.05), on=(ConnectionError, TimedOut))
run(
    Supervisor(
        "crawler",
        [
            Child(Workers(pages, fetch, count=4, timeout=0.3, retry=retry)),
            Child(find_pages, after="fetch"),
        ],
    )
)
print(pages.statistics())
for letter in pages.dead_letters():
    print(f"{letter.item}: {letter.failure.message}, attempts: {letter.attempts}")
