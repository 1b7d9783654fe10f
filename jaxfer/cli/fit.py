"""`fit FOLDER --to FILE`: a classifier of the classes in a folder of photographs."""

import datetime
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from jaxfer import stats
from jaxfer.data import Bank
from jaxfer.estimator import FewShotClassifier
from jaxfer.heads.leave_one_out import support_logits
from jaxfer.models import embed_folder


def run(
    folder: Path,
    model: str,
    head: Any,
    to: Path,
    unknown: float | None,
    bank: Path | None,
    workers: int,
) -> None:
    """Fit a classifier, print how good it is, and save it.

    A folder with parts trains on `train` and tests on `test`; of another folder each
    picture is left out in turn.
    """
    classifier = FewShotClassifier(model, head, unknown=unknown)
    # The model is part of the file, so that it can classify pictures anywhere.
    backbone = classifier.backbone()
    known = embed_folder(backbone, folder, bank, workers=workers)
    if not known.class_names:
        raise ValueError(
            f"expected one folder per class in {folder}, got pictures without classes"
        )
    names = np.array(known.class_names)[known.labels]
    first = known.num_train or len(names)
    classifier.fit(known.embeddings[:first], names[:first])
    measured = _measured(classifier, known, names, first)
    classifier.about_ = {
        "made": datetime.date.today().isoformat(),
        "folder": folder.resolve().name,
        "pictures": {name: n for name, n in sorted(Counter(names[:first]).items())},
        "names": list(known.names[:first]),
        "weights": dict(backbone.about),
        "measured": measured,
    }
    classifier.save(to)
    counts = Counter(names[:first]).values()
    print(
        f"{to}: {len(counts)} classes of {min(counts)} to {max(counts)} pictures, "
        f"{model}, head {head}"
    )
    if measured:
        print(f"accuracy {measured['accuracy']}% ({measured['on']})")


def _measured(
    classifier: FewShotClassifier, known: Bank, names: np.ndarray, first: int
) -> dict[str, Any]:
    """The accuracy in percent with its 95% interval, and what it was measured on."""
    if first < len(names):
        found = classifier.predict(known.embeddings[first:])
        right, on = found == names[first:], f"{len(names) - first} test pictures"
    else:
        right = leave_one_out(classifier)
        on = f"{len(right)} pictures, each left out of the fit"
    if len(right) < 2:
        return {}
    return {"accuracy": str(stats.summarize(100.0 * right)), "on": on}


def leave_one_out(classifier: FewShotClassifier) -> np.ndarray:
    """Whether each picture gets its class from the others, for classes of several."""
    z, labels = classifier.examples()
    counts = np.bincount(labels)
    logits = support_logits(classifier.head, z, labels, leave_out=True)
    found = logits(classifier.temperature_).argmax(axis=1)
    return (found == labels)[counts[labels] > 1]
