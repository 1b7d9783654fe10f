"""`predict MODEL FILES...`: photographs' classes as a table, CSV, JSON or page."""

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer.cli.page import write_page
from jaxfer.data.files import images_in
from jaxfer.estimator import FewShotClassifier


def run(
    model: Path,
    files: Sequence[Path],
    csv_to: Path | None,
    as_json: bool,
    page: Path | None,
    support: Path | None,
) -> None:
    """Classify pictures, and print or write their classes and probabilities."""
    classifier = FewShotClassifier.load(model)
    paths = _pictures(files)
    z = classifier.embed(paths)
    rows = table(classifier, z, paths)
    if csv_to is not None:
        with csv_to.open("w", newline="") as file:
            _write_csv(file, rows)
    if page is not None:
        nearest = classifier.nearest_examples(z).tolist()
        write_page(page, classifier, rows, paths, nearest, support)
    if as_json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    elif csv_to is None and page is None:
        _print_rows(rows)
    for path in (csv_to, page):
        if path is not None:
            print(f"{path}: {len(rows)} pictures")


def table(
    classifier: FewShotClassifier, z: np.ndarray, paths: Sequence[Path | str]
) -> list[dict[str, Any]]:
    """One row per picture: file, label, probability, similarity and all probabilities.

    Args:
        classifier: the classifier.
        z: `[n, dim]`, the embeddings of the pictures.
        paths: their files, or other names.
    """
    shares = classifier.predict_proba(z)
    labels, similar = classifier.predict(z), classifier.similarity(z)
    classes = [str(name) for name in classifier.classes_]
    return [
        {
            "file": str(path),
            "label": str(label),
            "probability": round(float(share.max()), 4),
            "similarity": round(float(similarity), 4),
            "probabilities": {
                name: round(float(p), 4) for name, p in zip(classes, share, strict=True)
            },
        }
        for path, label, share, similarity in zip(
            paths, labels, shares, similar, strict=True
        )
    ]


def _pictures(files: Sequence[Path]) -> list[Path]:
    """The pictures that are named, and all those below the folders that are named."""
    found: list[Path] = []
    for path in files:
        below = images_in(path) if path.is_dir() else [path]
        if not below:
            raise ValueError(f"expected pictures in {path}, got none")
        found += below
    return found


def _write_csv(file: Any, rows: Sequence[dict[str, Any]]) -> None:
    names = [*rows[0]["probabilities"]]
    writer = csv.writer(file)
    writer.writerow(["file", "label", "probability", "similarity", *names])
    for row in rows:
        values = [row[k] for k in ("file", "label", "probability", "similarity")]
        writer.writerow([*values, *(row["probabilities"][name] for name in names)])


def _print_rows(rows: Sequence[dict[str, Any]]) -> None:
    width = max(len(row["label"]) for row in rows)
    for row in rows:
        share = f"{100 * row['probability']:5.1f}%"
        print(f"{row['label']:<{width}}  {share}  {row['file']}")
