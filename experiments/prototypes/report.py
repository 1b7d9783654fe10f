"""The table of a run of prototypical networks."""

from collections.abc import Mapping
from typing import Any

from jaxfer.stats import Summary
from jaxfer.tables import markdown

_METHODS: dict[str, str] = {
    "prototypes": "prototypes",
    "prototypes_transductive": "prototypes, transductive",
    "pixel_nearest_neighbour": "nearest neighbour on pixels",
}


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the test accuracies as a Markdown table, keyed by its title."""
    found: dict[str, dict[str, str]] = {}
    episodes, split = set(), result["config"]["data.test"]
    for name, metric in result["metrics"].items():
        _, setting, method, _ = name.split("/")
        summary = Summary(metric["mean"], metric["ci95"], metric["n"])
        shown = _METHODS.get(method) or method
        found.setdefault(setting, {})[shown] = str(summary)
        episodes.add(metric["n"])
    published = {
        row["name"].split("/")[1]: f"{row['value']:.1f}" for row in result["reference"]
    }
    columns = list(dict.fromkeys(method for row in found.values() for method in row))
    rows = [
        [
            setting.replace("_", " ").replace("way", "-way").replace("shot", "-shot"),
            *(row.get(method, "") for method in columns),
            *([published.get(setting, "")] if published else []),
        ]
        for setting, row in found.items()
    ]
    title = (
        f"Accuracy on {split} classes in percent, means over {max(episodes)} episodes "
        "with 95% intervals"
    )
    header = ["task", *columns, *(["published"] if published else [])]
    return {title: markdown(header, rows)}
