"""Ranges of numbers in a config: stated where a field is declared, checked at once.

class Task:
    way: Annotated[int, Range(2)] = 60
    dropout: Share | None = None
    shots: tuple[Count, ...] = (1, 5)
"""

import dataclasses
import functools
import math
import numbers
import typing
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """The numbers that a field may have; NaN and infinity are never among them.

    Attributes:
        low: the smallest one.
        high: the largest one; default: none.
        open_low: whether `low` itself is left out.
        open_high: whether `high` itself is left out.
        also: other numbers that are allowed.

    Example:
        >>> 0 in Range(1), -1 in Range(1, also=-1), float("nan") in Range(0)
        (False, True, False)
        >>> print(Range(0), "|", Range(0, 1, open_high=True))
        to be a finite number of at least 0 | in [0, 1)
    """

    low: int | float
    high: int | float | None = None
    open_low: bool = False
    open_high: bool = False
    also: int | float | None = None

    def __contains__(self, x: Any) -> bool:
        """Whether a number may be used."""
        if not isinstance(x, numbers.Real) or not math.isfinite(x):
            return False
        n = float(x)
        above = n > self.low if self.open_low else n >= self.low
        below = self.high is None or (
            n < self.high if self.open_high else n <= self.high
        )
        return n == self.also or (above and below)

    def __str__(self) -> str:
        """What is expected, to follow the name of the field."""
        low, high = _text(self.low), _text(self.high)
        if self.high is None:
            than = "above" if self.open_low else "of at least"
            text = f"to be a finite number {than} {low}"
        elif self.open_low or self.open_high:
            text = f"in {'[('[self.open_low]}{low}, {high}{'])'[self.open_high]}"
        else:
            text = f"from {low} to {high}"
        return text if self.also is None else f"{text}, or {_text(self.also)}"


Count = Annotated[int, Range(1, 2**31 - 1)]
"""A number of things: at least 1."""
Amount = Annotated[int, Range(0, 2**31 - 1)]
"""A number of things that may be 0."""
Seed = Annotated[int, Range(0, 2**32, open_high=True)]
"""A seed of random numbers."""
Positive = Annotated[float, Range(0, open_low=True)]
"""A finite number above 0."""
NotNegative = Annotated[float, Range(0)]
"""A finite number of at least 0."""
Share = Annotated[float, Range(0, 1, open_high=True)]
"""A share, rate or momentum: at least 0 and below 1."""


def check_ranges(config: Any, prefix: str = "") -> None:
    """Refuse numbers of a config that are outside the ranges of their fields.

    Args:
        config: a dataclass, which may hold others.
        prefix: what its fields' names begin with, for the message.

    Raises:
        ValueError: such a number; the message has its name and its range.

    Example:
        >>> @dataclasses.dataclass
        ... class Task:
        ...     shots: tuple[Count, ...] = (1, 0)
        >>> check_ranges(Task())
        Traceback (most recent call last):
        ...
        ValueError: expected shots of at least 1, got [1, 0]
    """
    for name, value, allowed in ranges_of(config, prefix):
        for number in value if isinstance(value, tuple | list) else (value,):
            # A word or None may stand for a number.
            if isinstance(number, str) or number is None or number in allowed:
                continue
            if not isinstance(number, numbers.Real):
                raise ValueError(f"expected numbers as {name}, got {value!r}")
            shown = list(value) if isinstance(value, tuple | list) else value
            raise ValueError(f"expected {name} {_broken(allowed, number)}, got {shown}")


def ranges_of(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Range]]:
    """Dotted name, value and range of every field that has a range."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from ranges_of(value, f"{name}.")
        elif (allowed := _range_in(hints[field.name])) is not None:
            yield name, value, allowed


@functools.cache
def _hints(config_class: type) -> dict[str, Any]:
    return typing.get_type_hints(config_class, include_extras=True)


def _range_in(hint: Any) -> Range | None:
    """The range in an annotation, or in a part of it."""
    found = [x for x in getattr(hint, "__metadata__", ()) if isinstance(x, Range)]
    if found:
        return found[0]
    inner = (_range_in(part) for part in typing.get_args(hint))
    return next((one for one in inner if one is not None), None)


def _broken(allowed: Range, number: Any) -> str:
    """The side of a range that a number is beyond, or the whole range."""
    wide = allowed.high is not None and allowed.high - allowed.low > 100
    if not wide or allowed.open_low or allowed.open_high or not math.isfinite(number):
        return str(allowed)
    if number > allowed.high:
        return f"of at most {_text(allowed.high)}"
    more = "" if allowed.also is None else f", or {_text(allowed.also)}"
    return f"of at least {_text(allowed.low)}{more}"


def _text(number: int | float | None) -> str:
    return "2^32" if number == 2**32 else f"{number:,}" if number else f"{number}"
