"""A pipeline of three stages: a batch job that ends with status 0 when all of its work is done."""

from trio_services import Batch, Child, Discard, Supervisor, Workers, WorkQueue, run

lines = WorkQueue[str]("lines", capacity=10)
orders = WorkQueue[tuple[str, int]]("orders", capacity=10)
priced = WorkQueue[tuple[str, int]]("priced", capacity=10)

PRICES = {"apple": 2, "pear": 3}


async def read() -> None:
    """Read the lines of a file, as fast as the stages make room."""
    for number in range(1, 24):
        await lines.put(f"{'apple' if number % 2 else 'pear'} {number}" if number % 10 else "")
    lines.close()  # each stage closes the next when it has ended


async def parse(line: str) -> None:
    """Make an order of a line."""
    if not line:
        raise Discard("an empty line")
    fruit, count = line.split()
    await orders.put((fruit, int(count)))


async def price(order: tuple[str, int]) -> None:
    """Look up what an order costs."""
    fruit, count = order
    await priced.put((fruit, PRICES[fruit] * count))


async def store(batch: list[tuple[str, int]]) -> None:  # noqa: ASYNC124
    """Store many orders at once."""
    print(f"{len(batch)} orders stored: {sum(cost for _, cost in batch)} euros")


run(
    Supervisor(
        "shop",
        [
            Child(Workers(priced, store, batch=Batch(10, within=0.5), drain=True)),
            Child(Workers(orders, price, count=4, feeds=priced, drain=True), after="store"),
            Child(Workers(lines, parse, feeds=orders, drain=True), after="price"),
            Child(read, after="parse"),
        ],
        stop_within=5.0,
    )
)
for queue in (lines, orders, priced):
    print(f"{queue.name}: {queue.statistics()}")
