"""A handler that cannot be made."""


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no van\ntoday")

    async def __call__(self, parcel: str) -> None:
        pass
