"""A shop that does without a part of it for a while, and what an operator sees of that."""

import trio

from trio_services import Backoff, Breaker, Child, Supervisor, every, open_supervisor
from trio_services.supervision import Tree

rates: dict[str, float] = {}  # of the day; nothing while nobody keeps them up to date
answers = trio.Event()  # the imaginary bank does, from then on


async def sell() -> None:
    """Sell, in dollars as well as long as their rate is known."""
    async for tick in every(0.7, start=0.2):
        dollars = f" or {100 * rates['USD']:.0f} dollars" if rates else ""
        print(f"sale {tick.number}: 100 euros{dollars}")


async def keep_rates() -> None:
    """Keep the exchange rates of the day."""
    if not answers.is_set():
        raise ConnectionError("the bank does not answer")
    rates["USD"] = 1.1
    await trio.sleep_forever()


def look(tree: Tree) -> None:
    """Print what an operator wants to know."""
    print(f"{tree.life.name} is {tree.statistics().health.status.name.lower()}")
    for one in tree.statistics().children:
        breaker = f", breaker {one.breaker}" if one.breaker else ""
        print(f"  {one.name}: {one.state}, {one.restarts} restarts{breaker}")


async def main() -> None:
    """Have the bank fall silent at first."""
    breaker = Breaker(failures=3, within=10.0, reset_after=0.5, healthy_after=0.2, jitter=0)
    backoff = Backoff(initial=0.05, jitter=0)
    rated = Child(keep_rates, critical=False, breaker=breaker, backoff=backoff)
    async with open_supervisor(Supervisor("shop", [sell, rated])) as tree:
        await trio.sleep(0.4)
        look(tree)
        answers.set()
        await trio.sleep(1.0)
        look(tree)


trio.run(main)
