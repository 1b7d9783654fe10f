"""The findings of Yosinski et al. 2014, as differences between treatments."""

from collections.abc import Sequence
from typing import Any

from jaxfer.claims import Claim

# Both halves of a split share base networks: a repetition is one split and one seed.
OVER, WITHIN = ("split", "seed"), ("half",)


def claims(layers: Sequence[int]) -> list[Claim]:
    """Return the five findings of the paper, and comparisons with the base networks.

    Args:
        layers: the values of n, in ascending order.
    """
    if not layers:
        return []
    found: list[Claim] = []

    def say(name: str, what: str, one: Any, other: Any, **how: Any) -> None:
        found.append(Claim(name, what, one, other, over=OVER, within=WITHIN, **how))

    def at(treatment: str, n: int | None = None, grid: str = "similar") -> Any:
        where = {} if n is None else {"n": n}
        return {"grid": grid, "treatment": treatment, **where}

    base = at("base")
    for kind, what in (
        ("base3", "trained three times as long - base"),
        ("base+", "base trained for a second time - base"),
        ("pixels", "logistic regression on pixels - base"),
    ):
        say(f"0/{kind}", what, at(kind), base, expects=None)
    first, last = layers[0], layers[-1]
    for n in [n for n in layers if first < n < last]:
        what = f"BnB - base at n = {n}: selffers dip at middle n"
        say(f"1/n{n}", what, at("BnB", n), base, expects="below")
        what = f"BnB+ - BnB at n = {n}: fine-tuning recovers"
        say(f"2/n{n}", what, at("BnB+", n), at("BnB", n))
        say(f"2/n{n}/base", f"BnB+ - base at n = {n}: recovered", at("BnB+", n), base)
    if first < last:
        what = f"AnB at n = {last} - at n = {first}: transfer falls with n"
        say("3/falls", what, at("AnB", last), at("AnB", first), expects="below")
    what = f"specificity - co-adaptation at n = {last}: specificity dominates late"
    say(
        "3/specificity",
        what,
        at("specificity", last),
        at("co_adaptation", last),
        metric="loss",
    )
    say("4/base", "AnB+ over all n - base", at("AnB+"), base)
    say("4/control", "AnB+ over all n - base trained twice", at("AnB+"), at("base+"))
    say("4/selffer", "AnB+ - BnB+, over all n", at("AnB+"), at("BnB+"))
    for n in layers:
        far = at("AnB", n, "dissimilar")
        how = {"metric": "minus_base", "match": "unpaired"}
        what = f"(AnB - base) of dissimilar - of similar halves, n = {n}: falls more"
        say(f"5/falls/n{n}", what, far, at("AnB", n), expects="below", **how)
        what = f"(AnB - base) of dissimilar halves - (random - base), n = {n}"
        say(f"5/random/n{n}", what, far, at("random", n, "untrained"), **how)
    return found
