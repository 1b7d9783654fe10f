"""The findings of Snell et al. 2017 on zero-shot classification, as differences."""

from collections.abc import Sequence
from typing import Any

from jaxfer.claims import Claim


def claims(levels: Sequence[float | None], shots: Sequence[int]) -> list[Claim]:
    """Return the findings at every noise level.

    Args:
        levels: the noise levels; None for features of a data set.
        shots: the shots of few-shot prototypes.
    """
    found: list[Claim] = []

    def at(noise: float | None, method: str, shot: int = 0) -> dict[str, Any]:
        return {"noise": noise, "method": method, "shot": shot}

    for noise in levels:
        own = at(noise, "zero_shot")
        where = "" if noise is None else f", noise {noise:g}"
        name = "" if noise is None else f"/noise{noise:g}"
        what = f"zero-shot - chance{where}"
        found.append(Claim(f"1{name}", what, own, at(noise, "chance")))
        for shot in shots:
            what = f"zero-shot - prototypes of {shot} per class{where}"
            other = at(noise, "prototypes", shot)
            found.append(Claim(f"2{name}/{shot}shot", what, own, other, expects=None))
    if len(levels) > 1:
        low, *_, high = sorted(level for level in levels if level is not None)
        what = f"zero-shot with noise {high:g} - with {low:g}"
        found.append(
            Claim(
                "3", what, at(high, "zero_shot"), at(low, "zero_shot"), expects="below"
            )
        )
    return found
