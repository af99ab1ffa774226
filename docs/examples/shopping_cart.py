"""A shopping cart that loses nothing: every node takes every click, also while nodes cannot hear each other.

    python shopping_cart.py ./shop alice add tea 2             # one node inside this process
    python shopping_cart.py leafdb://127.0.0.1:7411 alice add tea 2
    python shopping_cart.py leafdb://127.0.0.1:7411 alice remove tea
    python shopping_cart.py leafdb://127.0.0.1:7411 alice show

docs/examples/shopping-cart.md explains every part.
"""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from dataclasses import dataclass, field, replace

import leafdb

BUCKET = "carts"


@dataclass(frozen=True)
class Line:
    """So many of a product, put into the cart by one click."""

    product: str
    quantity: int


@dataclass(frozen=True)
class Cart:
    """Lines by the id of the click that added each, and the clicks whose lines were taken out again."""

    lines: dict[str, Line] = field(default_factory=dict)
    removed: tuple[str, ...] = ()

    def add(self, click: str, product: str, quantity: int = 1) -> Cart:
        """With a line more. The same click again changes nothing."""
        if click in self.removed:
            return self
        return replace(self, lines={**self.lines, click: Line(product, quantity)})

    def remove(self, product: str) -> Cart:
        """Without all that is seen of a product."""
        seen = {click for click, line in self.lines.items() if line.product == product}
        return Cart(
            {click: line for click, line in self.lines.items() if click not in seen},
            tuple(sorted({*self.removed, *seen})),
        )

    def products(self) -> Counter[str]:
        """What is in it, and how many of each."""
        count: Counter[str] = Counter()
        for line in self.lines.values():
            count[line.product] += line.quantity
        return count


def merge_carts(one: Cart, other: Cart) -> Cart:
    """All clicks of both, without what either saw removed."""
    removed = {*one.removed, *other.removed}
    lines = {**one.lines, **other.lines}
    return Cart({click: lines[click] for click in sorted(lines) if click not in removed}, tuple(sorted(removed)))


class Carts:
    """The carts of a shop, by shopper."""

    def __init__(self, db: leafdb.Client) -> None:
        db.create_bucket(BUCKET, exist_ok=True)
        self._carts = db.bucket(BUCKET, codec=leafdb.JSON(Cart), merge=merge_carts)

    def show(self, shopper: str) -> Cart:
        """A shopper's cart."""
        return self._carts.get(shopper) or Cart()

    def add(self, shopper: str, product: str, quantity: int, *, click: str) -> Cart:
        """Put something in; the cart, as far as it can be seen. When this raises, call it again with the same `click`:
        it counts once."""
        try:
            return self._carts.update(shopper, lambda cart: cart.add(click, product, quantity), default=Cart())
        except (leafdb.NotEnoughReplicas, leafdb.DeadlineExceeded):  # we cannot see the cart, and sell all the same
            line = Cart().add(click, product, quantity)
            self._carts.put(shopper, line, after=leafdb.BLIND)
            return line

    def remove(self, shopper: str, product: str) -> Cart:
        """Take out what is seen of a product. What is added elsewhere at the same moment stays."""
        return self._carts.update(shopper, lambda cart: cart.remove(product), default=Cart())


def main(where: str, shopper: str, verb: str = "show", product: str = "", quantity: str = "1") -> None:
    """One command of the program above."""
    with leafdb.connect(where) if "://" in where else leafdb.open(where) as db:
        carts = Carts(db)
        if verb == "add":
            cart = carts.add(shopper, product, int(quantity), click=uuid.uuid4().hex)
        elif verb == "remove":
            cart = carts.remove(shopper, product)
        else:
            cart = carts.show(shopper)
    for name, count in sorted(cart.products().items()):
        print(f"{count:4} {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
