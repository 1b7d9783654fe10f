"""A page of predictions in HTML: each picture beside the most similar example."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxfer.data.photos import square
from jaxfer.estimator import FewShotClassifier

_SIDE = 160
_STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 60em; }
body { padding: 0 1em; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ccc; padding: .5em; text-align: left; }
img { display: block; }
small { color: #555; display: block; overflow-wrap: anywhere; width: 160px; }
.shares { white-space: nowrap; }
.unknown { color: #b00020; }
.bar { background: #0072b2; display: inline-block; height: .7em; }
"""


def write_page(
    path: Path,
    classifier: FewShotClassifier,
    rows: Sequence[dict[str, Any]],
    pictures: Sequence[Path],
    nearest: Sequence[int],
    support: Path | None,
) -> None:
    """Write a page without scripts and without other files.

    Args:
        path: the page.
        classifier: the classifier, whose `about_` has the names of its examples.
        rows: the predictions, see `predict.table`.
        pictures: the file of each prediction.
        nearest: the number of the most similar example of each prediction.
        support: the folder of the examples; None to show their names only.
    """
    names = classifier.about_.get("names", [])
    lines = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>Predictions</title><style>{_STYLE}</style>",
        f"<h1>{len(rows)} pictures, {len(classifier.classes_)} classes</h1>",
        "<table><tr><th>picture<th>class<th>probability<th>most similar example",
    ]
    for row, picture, at in zip(rows, pictures, nearest, strict=True):
        example = names[at] if at < len(names) else ""
        unknown = row["label"] not in row["probabilities"]
        best = sorted(row["probabilities"].items(), key=lambda item: -item[1])[:3]
        shares = "<br>".join(
            f"<span class=bar style='width:{80 * p:.0f}px'></span> "
            f"{100 * p:.1f}% {html.escape(name)}"
            for name, p in best
        )
        shown = _image(support / example) if support and example else ""
        lines.append(
            f"<tr><td>{_image(picture)}{_small(picture.name)}"
            f"<td class={'unknown' if unknown else 'known'}>"
            f"{html.escape(row['label'])}<td class=shares>{shares}"
            f"<td>{shown}{_small(example)}"
        )
    path.write_text("\n".join([*lines, "</table></html>"]))


def _small(text: str) -> str:
    return f"<small>{html.escape(text)}</small>"


def _image(path: Path) -> str:
    """A picture as a small JPEG within the page; nothing if it does not exist."""
    if not path.is_file():
        return ""
    from PIL import Image

    file = io.BytesIO()
    with Image.open(path) as picture:
        Image.fromarray(square(picture, _SIDE)).save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<img alt='' src='data:image/jpeg;base64,{data}'>"
