"""The tables of runs of prototypical networks."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxfer.stats import Summary
from jaxfer.tables import markdown

_METHODS: dict[str, str] = {
    "prototypes": "prototypes",
    "prototypes_transductive": "prototypes, transductive",
    "prototypes_cosine": "prototypes, cosine",
    "matching": "matching networks",
    "diagonal": "learned scales",
    "gaussians": "Gaussians",
    "matching_fce": "matching, full context",
    "anil": "ANIL",
    "maml": "MAML",
    "fine_tuning": "fine-tuning",
    "nearest": "nearest neighbour",
    "nearest_cosine": "nearest neighbour, cosine",
    "simpleshot": "SimpleShot",
    "ridge": "ridge regression",
    "logistic": "logistic regression",
    "pixel_nearest_neighbour": "nearest neighbour on pixels",
}


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the test accuracies as a Markdown table, keyed by its title."""
    cells = _cells(result)
    published = _published(result)
    columns = list(dict.fromkeys(method for row in cells.values() for method in row))
    header = ["task", *(_METHODS.get(name) or name for name in columns), "chance"]
    rows = []
    for task, row in cells.items():
        way = int(task.partition("way")[0])
        rows.append([spoken(task), *(row.get(name, "") for name in columns)])
        rows[-1].append(f"{100 / way:.2f}")
        if published:
            rows[-1].append(published.get(task, ""))
    split = result["config"]["data.test"]
    episodes = max(metric["n"] for metric in result["metrics"].values())
    title = (
        f"Accuracy on {split} classes in percent, means over {episodes} episodes with "
        "95% intervals"
    )
    return {title: markdown([*header, *["published"] * bool(published)], rows)}


def compare_runs(results: Sequence[Mapping[str, Any]]) -> str:
    """Return one row per run of the same test tasks, and the published values.

    Args:
        results: the results of runs that were tested on the same tasks.
    """
    every, rows = [_cells(result) for result in results], []
    tasks = [*every[0]]
    for result, cells in zip(results, every, strict=True):
        config = result["config"]
        trained = f"{config['task.way']}-way {config['task.shot']}-shot"
        facts = [trained, f"{config['episodes']:,}", str(config["seed"])]
        own = config.get("method", "prototypes")
        rows.append([*facts, *(cells[task][own] for task in tasks)])
    if published := _published(results[0]):
        (source,) = {row["source"] for row in results[0]["reference"]}
        rows.append([source, "", "", *(published.get(task, "") for task in tasks)])
    name = "pixel_nearest_neighbour"
    rows.append([_METHODS[name], "", "", *(every[0][task][name] for task in tasks)])
    return markdown(["trained", "episodes", "seed", *map(spoken, tasks)], rows)


def _cells(result: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return accuracies with intervals, by task and method."""
    found: dict[str, dict[str, str]] = {}
    for name, metric in result["metrics"].items():
        _, task, method, _ = name.split("/")
        summary = Summary(metric["mean"], metric["ci95"], metric["n"])
        found.setdefault(task, {})[method] = str(summary)
    return found


def _published(result: Mapping[str, Any]) -> dict[str, str]:
    return {
        row["name"].split("/")[1]: f"{row['value']:.1f}" for row in result["reference"]
    }


def spoken(task: str) -> str:
    """Return the name of a task as text has it: 5-way 1-shot for 5way_1shot."""
    way, shot = task.split("_")
    return f"{way.removesuffix('way')}-way {shot.removesuffix('shot')}-shot"
