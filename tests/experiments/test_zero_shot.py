"""The zero-shot study: simulated features, a bank, images, and what it refuses."""

import dataclasses
import importlib
import itertools
from pathlib import Path
from threading import Barrier

import jax
import numpy as np
import pytest

from experiments.inputs import Network
from experiments.options import Mesh
from experiments.zero_shot import train as training
from experiments.zero_shot.claims import claims
from experiments.zero_shot.config import (
    Attributes,
    Config,
    Data,
    Simulated,
    Stopping,
    check,
)
from experiments.zero_shot.features import simulate
from experiments.zero_shot.report import tables
from experiments.zero_shot.run import run
from jaxfer import load_model
from jaxfer import study as study_queue
from jaxfer.data import Bank, load_attributes, random_class_split, save_bank
from jaxfer.models import Options
from jaxfer.optim import Optim
from jaxfer.runlog import read_result
from tests.experiments.drawn import assert_readable

QUIET = Options(save_every=50, log_every=10, progress=False)
CLASSES, FACTS = 24, 6


def write_facts(path):
    """Write a table of attributes, and return its path."""
    values = np.random.default_rng(0).normal(size=(CLASSES, FACTS)).round(3)
    lines = ["class," + ",".join(f"a{i}" for i in range(FACTS))]
    lines += [f"bird{i:02d}," + ",".join(map(str, row)) for i, row in enumerate(values)]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return write_facts(tmp_path_factory.mktemp("facts") / "birds.csv")


def study(facts, **changes):
    config = Config(
        data=Data("bank", class_shares=(0.5, 0.25, 0.25)),
        attributes=Attributes("table", facts, "standard"),
        simulated=Simulated(noise=(0.3,), class_noise=0.1, per_class=12, dim=8),
        seeds=(0,),
        way=8,
        query=3,
        dim=8,
        optim=Optim("adam", 1e-2, weight_decay=1e-5),
        episodes=300,
        val=Stopping(every=50, episodes=4, patience=2),
        shots=(1, 4),
        test_episodes=20,
        run=QUIET,
        figures=False,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def finished(facts, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    return workdir, run(study(facts), workdir)


def test_accuracy_is_that_of_the_saved_maps(finished, facts):
    """Every test image, by a slow loop over classes."""
    workdir, result = finished
    (member,) = (workdir / "members").iterdir()
    model = load_model(member)
    every = load_attributes("table", facts)
    data = simulate(every, Simulated(per_class=12, dim=8, class_noise=0.1), 0.3)
    parts = {
        name: random_class_split(data, name, shares=(0.5, 0.25, 0.25))
        for name in ("train", "test")
    }
    z = np.asarray(parts["train"].images).reshape(-1, 8)
    mean, std = z.mean(axis=0), np.sqrt(z.var(axis=0).mean())
    known = every.of(parts["train"].class_names).values
    own = model.params["method"]["attributes"]
    layer = model.params["embedding"]["Dense_0"]
    made = []
    for row in every.of(parts["test"].class_names).values:
        row = (row - known.mean(axis=0)) / known.std(axis=0)
        c = row @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
        made.append(c / np.linalg.norm(c))
    right = []
    x = np.asarray(parts["test"].images).reshape(-1, 8)
    for one, label in zip(x, parts["test"].labels, strict=True):
        f = (one - mean) / std @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        right.append(np.argmin([((f - c) ** 2).sum() for c in made]) == label)
    found = result["metrics"]["test_noise0.3/6way_0shot/zero_shot/accuracy"]
    assert found["mean"] == pytest.approx(100 * np.mean(right), abs=1e-4)
    assert found["mean"] > 60 and found["over"] == "seeds"


def test_the_result_keeps_the_contract(finished):
    workdir, result = finished
    assert read_result(workdir) == result
    assert result["data"] == "simulated" and result["lacking"] == []
    assert result["parts"]["trainval_noise0.3"]["classes"] == 18
    assert not {*result["classes"]["trainval_noise0.3"]} & {
        *result["classes"]["test_noise0.3"]
    }
    names = {name.split("/", 1)[1] for name in result["metrics"]}
    assert names == {
        "6way_0shot/zero_shot/accuracy",
        "6way_0shot/zero_shot/balanced_accuracy",
        "6way_1shot/prototypes/accuracy",
        "6way_4shot/prototypes/accuracy",
    }
    found = result["findings"]["1/noise0.3"]
    assert found["what"] == "zero-shot - chance, noise 0.3"
    ((title, table),) = tables(result).items()
    assert title.startswith("Accuracy on 6 test classes in percent, means over 1 seed")
    assert table.splitlines()[2].split("|")[1].strip() == "noise 0.3"
    assert "16.67" in table, "chance"


def test_a_study_resumes_and_grows(finished, facts, tmp_path, monkeypatch):
    workdir, result = finished
    config = study(facts, threads=1)
    real, calls = training.Trainer._validate, []

    def dying(self, item, images):
        validate = real(self, item, images)

        def one(model):
            calls.append(1)
            if len(calls) == 3:
                raise MemoryError("killed")
            return validate(model)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_validate", dying)
        with pytest.raises(MemoryError):
            run(config, tmp_path)
    again = run(config, tmp_path)
    assert again["metrics"] == result["metrics"], "as without the interruption"
    one, other = (
        load_model(next((w / "members").iterdir())) for w in (workdir, tmp_path)
    )
    kernels = [m.params["embedding"]["Dense_0"]["kernel"] for m in (one, other)]
    np.testing.assert_array_equal(*kernels)
    more = run(dataclasses.replace(config, seeds=(1,)), tmp_path)
    assert more["seed"] == [0, 1]
    metric = more["metrics"]["test_noise0.3/6way_0shot/zero_shot/accuracy"]
    assert metric["n"] == 2 and metric["ci95"] is not None


def test_a_bank_of_features_with_a_table(facts, tmp_path):
    every = load_attributes("table", facts)
    data = simulate(every, Simulated(per_class=8, dim=5), 0.2)
    names = tuple(map(str, range(len(data.labels))))
    z = np.asarray(data.images).reshape(-1, 5)
    bank = Bank(z, data.labels, data.class_names, names, names)
    path = str(save_bank(tmp_path / "birds.npz", bank))
    config = study(
        facts,
        data=Data("bank", dir=path),
        simulated=Simulated(),
        retrain=False,
        shots=(),
        query=2,
        way=5,
        episodes=50,
    )
    result = run(config, tmp_path / "run")
    assert "data" not in result and {*result["parts"]} == {"trainval", "test"}
    assert [*result["metrics"]] == [
        "test/5way_0shot/zero_shot/accuracy",
        "test/5way_0shot/zero_shot/balanced_accuracy",
    ]


def test_images_need_a_network_with_weights(facts, small_glyphs, tmp_path):
    config = study(
        facts,
        data=Data("glyphs"),
        attributes=Attributes("superclasses"),
        simulated=Simulated(),
        way=3,
        shots=(1,),
    )
    with pytest.raises(ValueError, match=r"expected net.pretrained, a model that emb"):
        run(config, tmp_path)


def test_seeds_train_on_devices_of_their_own(facts, finished, tmp_path, monkeypatch):
    """The seed of one device waits for those of the other, which is free again."""
    used, done, turns = {}, Barrier(2), itertools.count()

    def train(*args, mesh, phase, **how):
        trained = train_episodes(*args, mesh=mesh, phase=phase, **how)
        (device,) = mesh.devices.flat
        arrays = jax.tree.leaves(trained.model.params)
        assert all(x.devices() == {device} for x in arrays)
        if phase == "retrain":
            turn = next(turns)
            used[turn] = how["seed"], device.id
            if turn in (0, 2):
                done.wait(60)
        return trained

    train_episodes = training.models.train_episodes
    monkeypatch.setattr(training.models, "train_episodes", train)
    result = run(study(facts, seeds=(0, 1, 2), mesh=Mesh(2)), tmp_path)
    assert used[1][1] == used[2][1] == 1 - used[0][1]
    assert {seed for seed, _ in used.values()} == {0, 1, 2}
    assert len(result["devices"]) == 2
    member = study_queue.member_folder(Path(), "noise0.3-seed0")
    maps = [load_model(folder / member).params for folder in (tmp_path, finished[0])]
    jax.tree.map(np.testing.assert_array_equal, *maps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"way": 1}, "expected way of at least 2, got 1"),
        ({"seeds": ()}, "one or more different values for seeds"),
        ({"shots": (0,)}, r"expected shots of at least 1, got \[0\]"),
        (
            {"simulated": Simulated(noise=(0.0,))},
            "expected simulated.noise to be a finite number above 0",
        ),
        ({"population": 2}, "expected population = None, got 2"),
        ({"mesh": Mesh(model=2)}, "expected mesh.model = 1, got 2"),
        ({"mesh": Mesh(0)}, "expected mesh.data of at least 1, or -1, got 0"),
        ({"episodes": 10}, "expected episodes of at least 50, got 10"),
        ({"optim": Optim(schedule="cosine")}, "constant or staircase"),
        ({"attributes": Attributes("wordnet")}, "attributes.source table or cub with"),
        ({"temperature": 0.0}, "expected temperature"),
        ({"net": Network("Conv4")}, "expected no net.name with simulated.noise"),
        (
            {"simulated": Simulated(dim=3)},
            "expected no simulated.dim without simulated.noise",
        ),
        ({"seeds": (2**32,)}, r"expected seeds in \[0, 2\^32\)"),
    ],
)
def test_bad_options_are_refused(facts, changes, message):
    check(study(facts))
    with pytest.raises(ValueError, match=message):
        check(study(facts, **changes))


def test_classes_without_attributes_are_refused_before_training(facts, tmp_path):
    few = tmp_path / "few.csv"
    few.write_text("class,a\nbird00,1\n")
    # The classes of simulated features are those of the table.
    with pytest.raises(ValueError, match="attributes that differ between classes"):
        run(study(facts, attributes=Attributes("table", str(few))), tmp_path / "run")
    with pytest.raises(ValueError, match="at least way = 30 classes, got 12"):
        run(study(facts, way=30), tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()


def test_claims_compare_noise_levels():
    found = claims([4.0, 1.0], [1])
    last = found[-1]
    assert (last.one["noise"], last.other["noise"]) == (4.0, 1.0)
    assert last.expects == "below"
    assert [c.name for c in claims([None], [1, 5])] == ["1", "2/1shot", "2/5shot"]


def test_the_figure_has_a_panel_per_noise_level(
    finished, in_style, tmp_path, monkeypatch
):
    figures = importlib.import_module("experiments.zero_shot.figures")
    _, result = finished
    rows = [*result["rows"], *({**row, "noise": 9.0} for row in result["rows"])]
    drawn = figures.draw(tmp_path, {**result, "rows": rows})["shots"]
    axes = drawn.axes
    assert_readable(drawn, monkeypatch)
    assert [one.get_title(loc="left") for one in axes] == ["noise 0.3", "noise 9"]
    labels = [text.get_text() for text in axes[0].get_xticklabels()]
    assert labels == ["0", "1", "4"]
    lines = {line.get_label(): line for line in axes[0].get_lines()}
    shown = lines["attributes, no image"].get_ydata()
    found = result["metrics"]["test_noise0.3/6way_0shot/zero_shot/accuracy"]["mean"]
    assert shown.tolist() == [pytest.approx(found)]
    assert figures.draw(tmp_path, {**result, "rows": []})["shots"] is None


@pytest.mark.slow
def test_attributes_of_superclasses_and_a_trained_network(small_glyphs, tmp_path, key):
    """Images are embedded by saved weights, and each superclass is an attribute."""
    from jaxfer import save_model
    from jaxfer.models import init_model
    from jaxfer.nets import Conv4, as_net

    shape = (28, 28, 1)
    model = init_model(as_net(Conv4(width=4), shape), shape, key)
    path = save_model(tmp_path / "model.safetensors", model)
    config = study(
        None,
        data=Data("glyphs"),
        net=Network(pretrained=str(path or tmp_path / "model.safetensors")),
        attributes=Attributes("superclasses"),
        simulated=Simulated(),
        way=2,
        query=2,
        episodes=50,
        shots=(1,),
    )
    result = run(config, tmp_path / "run")
    (name,) = [n for n in result["metrics"] if n.endswith("zero_shot/accuracy")]
    assert 0 <= result["metrics"][name]["mean"] <= 100
    assert all("/" in name for name in result["classes"]["test"])
