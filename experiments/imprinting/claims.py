"""The findings of Qi et al. 2018, as differences between rows paired by seed."""

from collections.abc import Sequence
from typing import Any

from experiments.imprinting.config import Config
from jaxfer.claims import Claim

# Accuracies are about equal within this many percentage points: the paper's own
# differ by at most 1.4.
EQUAL = 2.0


def claims(config: Config, shots: Sequence[int]) -> list[Claim]:
    """Return the findings of the paper at every n.

    Args:
        config: the config of the study.
        shots: the values of n that were measured.
    """
    found: list[Claim] = []

    def at(row: str, n: int, dim: int = config.dim) -> dict[str, Any]:
        return {"row": row, "n": n, "dim": dim}

    def say(
        name: str, what: str, one: Any, other: Any, metric: str = "novel", **how: Any
    ) -> None:
        n = one["n"]
        what = f"{what}, n = {n}, {metric} classes"
        found.append(Claim(f"{name}/n{n}", what, one, other, metric, **how))

    for n in shots:
        imprinting, tuned = at("imprinting", n), at("imprinting_ft", n)
        say("1", "Imprinting - Rand-noFT", imprinting, at("rand_noft", n))
        say("2", "Imprinting - Rand+FT", imprinting, at("rand_ft", n))
        about = {"expects": "equal", "tolerance": EQUAL}
        say("3", "+Aug - Imprinting", at("imprinting_aug", n), imprinting, **about)
        say("4", "Imprinting+FT - Rand+FT", tuned, at("rand_ft", n))
        what = "Imprinting+FT - Imprinting"
        expects = "below" if n == 1 else "above"
        say("5", what, tuned, imprinting, expects=expects)
        say("5/all", what, tuned, imprinting, "all")
        for loss in ("softmax", *config.losses):
            what = (
                "among novel classes only: class means - nearest neighbour, "
                f"{loss} embedding"
            )
            # With one example per class, both classifiers are the same.
            if n > 1:
                average, nearest = at(f"{loss}_average", n), at(f"{loss}_nearest", n)
                say(f"6/{loss}", what, average, nearest)
        for dim in config.dims:
            what = f"Imprinting with {dim} - with {config.dim} dimensions: about equal"
            say(f"7/d{dim}", what, at("imprinting", n, dim), imprinting, **about)
        say(
            "8", "AllClassJoint - Imprinting+FT", at("joint", n), tuned, expects="below"
        )
        what = "AllClassJoint with the cosine head - Imprinting+FT"
        say("8/cosine", what, at("joint_cosine", n), tuned, expects=None)
    return found
