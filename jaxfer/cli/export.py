"""`export MODEL --to DIR`: a classifier as StableHLO or ONNX."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxfer.estimator import FewShotClassifier
from jaxfer.exported import export


def run(model: Path, to: Path, formats: Sequence[Any]) -> None:
    """Export a classifier, and print what was written."""
    folder = export(FewShotClassifier.load(model), to, formats=formats)
    names = sorted(path.name for path in folder.iterdir())
    print(f"{folder}: {', '.join(names)}")
