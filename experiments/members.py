"""A study's networks on disk, each done where its record stands; and its findings."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.backbone import Data
from jaxfer import runlog
from jaxfer.data import Images
from jaxfer.stats import Summary
from jaxfer.trees import flatten, unflatten
from jaxfer.types import AnyArray, Params, State


def is_done(folder: Path, name: str) -> bool:
    """Whether a network is trained and tested."""
    return (folder / f"{name}.json").exists()


def check_member(folder: Path, name: str, data: str) -> None:
    """Refuse a network that is done and is of other data.

    Args:
        folder: of the networks.
        name: of the network.
        data: what says on which images and classes it is to be.

    Raises:
        ValueError: it was trained on others.
    """
    if not is_done(folder, name):
        return
    theirs = runlog.read_json(folder / f"{name}.json")["data"]
    if theirs != data:
        raise ValueError(
            f"{name} in {folder} was trained on data and classes {theirs}, "
            f"found {data}; choose another --workdir, or the data it was begun on"
        )


def write_member(
    folder: Path,
    name: str,
    record: Mapping[str, Any],
    arrays: Mapping[str, Any] | None,
) -> None:
    """Write what a network came to, and the network itself where others need it."""
    if arrays is not None:
        path = folder / f"{name}.npz"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **{k: np.asarray(x) for k, x in arrays.items()})
        os.replace(partial, path)
    # Last: a network is done where this stands.
    runlog.write_json(folder / f"{name}.json", record)


def read_net(path: Path) -> dict[str, Any]:
    """The arrays of a network: "params", "state", and how its pixels are normalised."""
    with np.load(path) as file:
        tree = unflatten({name: file[name] for name in file.files})
    return {"state": {}, **tree}


def net_arrays(
    params: Params, state: State, centre: AnyArray, scale: AnyArray
) -> dict[str, Any]:
    """A network and how its pixels are normalised, as `read_net` gives it back."""
    tree = {"params": params, "state": state, "centre": centre, "scale": scale}
    return flatten(tree)


def findings_table(result: Mapping[str, Any]) -> str:
    """The findings as Markdown."""
    lines = ["| finding | what | difference | seen |", "| --- | --- | --- | --- |"]
    for name, found in result["findings"].items():
        metric = found["difference"]
        value = str(Summary(metric["mean"], metric["ci95"], metric["n"]))
        words = {True: "yes", False: "no", None: "undecided"}
        # Of what nobody claims there is nothing to be seen.
        seen = words[found["seen"]] if "seen" in found else ""
        lines.append(f"| {name} | {found['what']} | {value} | {seen} |")
    return "\n".join(lines)


def study_result(
    records: Sequence[Mapping[str, Any]],
    train: Images,
    test: Images,
    data: Data,
    *,
    devices: int,
) -> dict[str, Any]:
    """What a study's result says of its networks, data and machine as a whole."""
    rates = [r["examples_per_s"] for r in records if r["examples_per_s"]]
    return {
        "throughput": {"examples_per_s": float(np.median(rates)) if rates else None},
        **runlog.environment(jax.devices()[:devices]),
        "dataset_fingerprint": {
            data.train: train.fingerprint,
            data.test: test.fingerprint,
        },
        "wall_s": sum(r["wall_s"] for r in records),
        **({"data": "simulated"} if test.simulated else {}),
    }


def data_of(train: Images, test: Images, classes: Sequence[str]) -> str:
    """What says on which images and classes a network is trained and tested."""
    digest = hashlib.sha256(repr(tuple(classes)).encode()).hexdigest()[:16]
    return " ".join((train.fingerprint, test.fingerprint, digest))
