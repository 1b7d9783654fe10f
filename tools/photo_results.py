"""Measure the few-shot classifier on photographs with a pretrained backbone.

    python tools/photo_results.py FOLDER --name birds
    python tools/photo_results.py cifar100 --name cifar100 --data DIR

FOLDER has one folder of photographs per class. `cifar100` takes 20 classes of CIFAR-100
and 40 test pictures of each, upsampled to the side of the backbone. Pictures are
embedded once. For 1, 5 and 10 pictures per class and 20 seeds, every head is fitted and
classifies all other pictures; then half of the classes are left out as unknown. The
result is docs/results/data/photographs_NAME.json.
"""

import argparse
import os
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer import FewShotClassifier, embed_folder, load_pretrained, measure_open_set
from jaxfer.config import clean_errors
from jaxfer.data import load
from jaxfer.data.files import images_in
from jaxfer.data.pictures import read_pictures
from jaxfer.models import embed_on_host, model_side
from jaxfer.runlog import write_json
from jaxfer.stats import summarize
from jaxfer.support_set import KINDS
from jaxfer.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
SHOTS, SEEDS, CLASSES, EACH = (1, 5, 10), 20, 20, 40
_BINS = 10


def embeddings(source: str, model: Any, data: Path | None) -> tuple[Any, Any]:
    """The embeddings and labels of a folder, or of a part of CIFAR-100."""
    if source != "cifar100":
        bank = embed_folder(model, source)
        return bank.embeddings, bank.labels
    images = load("cifar100", ["test"], data, by="example")["test"]
    chosen = np.sort(np.random.default_rng(0).permutation(100)[:CLASSES])
    rows = [np.flatnonzero(images.labels == c)[:EACH] for c in chosen]
    pictures = read_pictures([*images.images[np.concatenate(rows)]], model_side(model))
    return embed_on_host(model, pictures), np.repeat(np.arange(CLASSES), EACH)


def speed(source: str, model: Any) -> dict[str, float]:
    """Photographs per second, cores in use, and seconds of a fit on 5 x 5 photographs.

    Everything is compiled before it is timed.
    """
    files = images_in(Path(source))
    names = [file.parent.name for file in files]
    few = [file for name in sorted({*names})[:5] for file in _of(name, files)[:5]]

    def embed() -> Any:
        return embed_on_host(model, read_pictures(files, model_side(model)))

    def fit() -> Any:
        labels = [file.parent.name for file in few]
        return FewShotClassifier(model, "lda").fit(few, labels)

    embed(), fit()
    cpu, wall = time.process_time(), time.perf_counter()
    embed()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        fit()
        seconds.append(time.perf_counter() - begun)
    return {
        "images_per_s": len(files) / wall,
        "cores": cpu / wall,
        "fit_s": float(np.median(seconds)),
    }


def _of(name: str, files: Sequence[Path]) -> list[Path]:
    return [file for file in files if file.parent.name == name]


def split(labels: np.ndarray, shot: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pictures to fit and those to classify."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    own = [rng.permutation(np.flatnonzero(labels == c))[:shot] for c in classes]
    fitted = np.concatenate(own)
    return fitted, np.setdiff1d(np.arange(len(labels)), fitted)


def measure(z: np.ndarray, labels: np.ndarray) -> dict[str, dict[str, Any]]:
    """All metrics, as means over seeds with 95% intervals."""
    found: dict[str, list[float]] = defaultdict(list)
    for shot in SHOTS:
        for seed in range(SEEDS):
            fitted, rest = split(labels, shot, seed)
            for head in KINDS:
                place = f"n{shot}/{head}"
                classifier = FewShotClassifier(head=head).fit(z[fitted], labels[fitted])
                shares = classifier.predict_proba(z[rest])
                right = classifier.classes_[shares.argmax(1)] == labels[rest]
                own = shares[np.arange(len(rest)), labels[rest]]
                found[f"{place}/accuracy"].append(100 * right.mean())
                found[f"{place}/nll"].append(-np.log(np.maximum(own, 1e-12)).mean())
                found[f"{place}/ece"].append(100 * _ece(shares.max(1), right))
            for name, value in _open(z, labels, fitted, rest, seed).items():
                found[f"n{shot}/lda/{name}"].append(value)
        print(f"{shot} pictures per class done", file=sys.stderr)
    return {
        name: summarize(np.array(values)).metric(over="seeds", unit=_unit(name))
        for name, values in found.items()
    }


def _open(
    z: np.ndarray, labels: np.ndarray, fitted: np.ndarray, rest: np.ndarray, seed: int
) -> dict[str, float]:
    """Open-set measures in percent when half of the classes are unknown."""
    classes = np.random.default_rng(seed).permutation(np.unique(labels))
    known = np.isin(labels, classes[: max(2, len(classes) // 2)])
    fitted, inside = fitted[known[fitted]], rest[known[rest]]
    classifier = FewShotClassifier(head="lda").fit(z[fitted], labels[fitted])
    measured = measure_open_set(
        classifier.similarity(z[inside]),
        classifier.similarity(z[rest[~known[rest]]]),
        classifier.predict(z[inside]) == labels[inside],
    )
    return {name: 100 * getattr(measured, name) for name in ("auroc", "fpr95", "oscr")}


def _ece(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error: the mean gap of confidence and accuracy."""
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((confidence - right)[bins == b].sum()) for b in range(_BINS)]
    return float(np.sum(gaps) / len(right))


def _unit(name: str) -> str:
    return "nats" if name.endswith("/nll") else "%"


def tables(result: Mapping[str, Any]) -> dict[str, str]:
    """The tables of a result, by title."""
    metrics = result["metrics"]

    def cell(place: str, digits: int = 1) -> str:
        metric = metrics[place]
        return f"{metric['mean']:.{digits}f} ± {metric['ci95']:.{digits}f}"

    def by_head(metric: str, digits: int) -> str:
        rows = [
            [head, *(cell(f"n{n}/{head}/{metric}", digits) for n in SHOTS)]
            for head in KINDS
        ]
        return markdown(["head", *(f"{n} per class" for n in SHOTS)], rows)

    rows = [
        [str(n), *(cell(f"n{n}/lda/{name}") for name in ("auroc", "fpr95", "oscr"))]
        for n in SHOTS
    ]
    return {
        "Accuracy in percent": by_head("accuracy", 1),
        "Negative log likelihood in nats": by_head("nll", 2),
        "Calibration error in percent": by_head("ece", 1),
        "Half of the classes unknown": markdown(
            ["pictures per class", "AUROC", "FPR at 95%", "OSCR"], rows
        ),
        **_speed_table(result),
    }


def _speed_table(result: Mapping[str, Any]) -> dict[str, str]:
    if "speed" not in result:
        return {}
    found = result["speed"]
    rows = [
        ["photographs decoded and embedded per second", f"{found['images_per_s']:.0f}"],
        ["cores in use meanwhile", f"{found['cores']:.1f}"],
        ["seconds of a fit on 5 x 5 photographs", f"{found['fit_s']:.2f}"],
    ]
    return {"Speed": markdown(["", f"{result['cpus']} CPU cores"], rows)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a folder of photographs, or cifar100")
    parser.add_argument("--name", required=True, help="name of the result")
    parser.add_argument("--data", type=Path, help="TFDS data directory, for cifar100")
    parser.add_argument("--model", default="efficientnet_lite0")
    args = parser.parse_args()
    with clean_errors():
        model = load_pretrained(args.model)
        z, labels = embeddings(args.source, model, args.data)
        result = {
            "experiment": "photographs",
            "config": {"model": args.model, "seeds": SEEDS},
            "pictures": len(labels),
            "classes": len(np.unique(labels)),
            "metrics": measure(z, labels),
        }
        if args.source != "cifar100":
            result["cpus"] = len(os.sched_getaffinity(0))
            result["speed"] = speed(args.source, model)
        path = ROOT / "docs" / "results" / "data" / f"photographs_{args.name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)
    print(*(f"{title}:\n\n{x}\n" for title, x in tables(result).items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
