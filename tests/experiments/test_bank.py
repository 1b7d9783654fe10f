"""Experiments on a feature bank, in place of images."""

import numpy as np
import pytest

from experiments.imprinting import config as imprinting_config
from experiments.imprinting.run import run as run_imprinting
from experiments.inputs import Network
from experiments.layer_transfer import config as layers_config
from experiments.layer_transfer.run import run as run_layers
from experiments.options import Mesh
from experiments.prototypes import config as prototypes_config
from experiments.prototypes.run import run as run_prototypes
from jaxfer import measure_episodes
from jaxfer.data import Bank, load, random_class_split, save_bank
from jaxfer.models import EpisodeShape, Options
from jaxfer.models.model import Model
from jaxfer.nets import Flatten
from jaxfer.optim import Optim
from tests.experiments.tiny import ONE_BASE

QUIET = Options(save_every=0, log_every=10, progress=False)
CLASSES, EACH, DIM = 15, 10, 6


@pytest.fixture(scope="module")
def bank():
    """Classes that are far apart in comparison with their spread, far from 0."""
    rng = np.random.default_rng(0)
    centres = 5 + 3 * rng.normal(size=(CLASSES, 1, DIM))
    z = (centres + rng.normal(size=(CLASSES, EACH, DIM))).reshape(-1, DIM)
    n = len(z)
    names = tuple(f"{i:03d}.jpg" for i in range(n))
    labels = np.repeat(np.arange(CLASSES, dtype=np.int32), EACH)
    classes = tuple(f"class{i:02d}" for i in range(CLASSES))
    return Bank(z.astype(np.float32), labels, classes, names, names)


@pytest.fixture(scope="module")
def path(bank, tmp_path_factory):
    return str(save_bank(tmp_path_factory.mktemp("bank") / "features.npz", bank))


def test_parts_by_example_are_a_fifth_of_each_class(bank, path):
    parts = load("bank", ["train", "val", "trainval", "test"], path, by="example")
    counts = {name: np.bincount(part.labels) for name, part in parts.items()}
    for name, count in (("train", 7), ("val", 1), ("trainval", 8), ("test", 2)):
        assert counts[name].tolist() == [count] * CLASSES, name
    rows = np.concatenate([parts["trainval"].images[:], parts["test"].images[:]])
    np.testing.assert_array_equal(
        np.sort(rows.reshape(-1, DIM), axis=0), np.sort(bank.embeddings, axis=0)
    )


def test_prototypes_are_measured_on_it(bank, path, tmp_path):
    config = prototypes_config.Config(
        data=prototypes_config.Data("bank", dir=path),
        net=Network("Flatten"),
        task=prototypes_config.Task(way=3, shot=1, query=2),
        test=prototypes_config.Evaluation(ways=(3,), shots=(2,), query=4, episodes=9),
        episodes=2,
        mesh=Mesh(1),
        run=Options(save_every=0, log_every=1, progress=False),
    )
    result = run_prototypes(config, tmp_path, ())
    found = result["metrics"]["test/3way_2shot/prototypes/accuracy"]["mean"]
    test = random_class_split(bank.images("features"), "test")
    expected = measure_episodes(
        Model(Flatten().build(), {}, {}),
        test,
        EpisodeShape(way=3, shot=2, n_query=4),
        seed=0,
        split="test",
        episodes=9,
    )["accuracy"]
    assert found == pytest.approx(100 * expected.mean(), abs=1e-4) and found > 60
    assert not (tmp_path / "example.npz").exists(), "features are no pictures"


@pytest.mark.slow
def test_embeddings_are_trained_and_imprinted_on_it(path, tmp_path):
    config = imprinting_config.Config(
        data=imprinting_config.Data("bank", dir=path, base=10),
        net=Network("Flatten"),
        dim=4,
        optim=Optim("adam", 0.03),
        epochs=10,
        run=QUIET,
        **ONE_BASE,
    )
    metrics = run_imprinting(config, tmp_path)["metrics"]
    assert metrics["10+5/n1/imprinting/novel"]["mean"] > 30
    assert metrics["10+5/n1/imprinting/base"]["mean"] > 40


def test_a_network_of_images_is_refused_on_it(path, tmp_path):
    none = layers_config.Grid("whole", splits=(), treatments=("base",))
    config = layers_config.Config(
        data=layers_config.Data("bank", dir=path),
        net=Network("AlexNetSmall", width=1),
        similar=none,
        dissimilar=none,
        untrained=layers_config.Grid("whole", (0,), treatments=("base", "pixels")),
        layers=(1,),
        epochs=1,
        batch=20,
        run=QUIET,
        figures=False,
    )
    with pytest.raises(ValueError, match="expected images of at least 8x8 pixels"):
        run_layers(config, tmp_path)
