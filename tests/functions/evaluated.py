"""Functions in a file without postponed annotations."""


def totals(count: int) -> dict:
    import dataclasses

    @dataclasses.dataclass(order=True)
    class Item:
        number: int
        price: float = 2.0

    return dataclasses.asdict(max(Item(one) for one in range(count)))


def fields():
    import dataclasses
    from typing import ClassVar

    @dataclasses.dataclass
    class Item:
        number: int
        known: ClassVar[int] = 0

    return [one.name for one in dataclasses.fields(Item)]


def hints():
    import typing

    class Item:
        pass

    def change(item: Item, count: int) -> None:
        pass

    known = typing.get_type_hints(change)
    return [known["item"].__name__, known["count"].__name__]
