"""Greetings: what a service asks for by type is made as the options of its own table say."""

import attrs

from trio_services import SERVICE, Container


@attrs.frozen
class CardOptions:
    """What is on a card."""

    name: str


class Card:
    """A card for one person."""

    def __init__(self, options: CardOptions) -> None:
        self.text = f"Hello, {options.name}!"


async def greet(card: Card) -> None:  # noqa: ASYNC124
    """Greet once."""
    print(card.text)


container = Container()
container.expect(CardOptions, scope=SERVICE)
container.provide(Card, scope=SERVICE)
