"""Studies of layer transfer end to end, on three layers and sixteen classes."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import studies
from experiments.layer_transfer.config import Config, Data, Grid, Network
from experiments.layer_transfer.run import run
from experiments.options import Mesh
from jaxfer import load_model, loop, predict
from jaxfer.data import Crop, glyphs
from jaxfer.models import Options
from jaxfer.models import batches as batches_module
from jaxfer.optim import Optim
from jaxfer.runlog import read_json, read_metrics
from jaxfer.study import member_folder
from jaxfer.trees import flatten
from tests.tiny import Tiny

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small_glyphs")

NONE = Grid("whole", splits=(), treatments=("base",))
QUIET = Options(save_every=0, log_every=1, progress=False)
TINY = Config(
    data=Data("glyphs", classes=16, side=14),
    net=Network("tests.tiny:Tiny"),
    optim=Optim("sgd", 0.05, schedule="cosine", warmup=1 / 12, weight_decay=5e-4),
    similar=Grid(splits=(0,), treatments=("base", "BnB", "AnB")),
    dissimilar=NONE,
    untrained=NONE,
    layers=(3,),
    epochs=2,
    batch=20,
    run=QUIET,
    figures=False,
)
EVERY = dataclasses.replace(
    TINY,
    similar=Grid(
        splits=(0,),
        treatments=(
            *("base", "base3", "base+", "pixels", "BnB", "BnB+", "AnB", "AnB+"),
            *("BnB-keep1", "AnB-thaw"),
        ),
    ),
    dissimilar=Grid("family", splits=(0,), treatments=("base", "AnB")),
    untrained=Grid("whole", splits=(0,), treatments=("base", "random")),
    layers=(1, 3),
    figures=True,
)
# Steps of a network: 8 classes of 15 drawings, batches of 20, two epochs.
STEPS = 12


def _only(*treatments, **changes):
    """One split's networks alone."""
    grid = Grid(splits=(0,), treatments=treatments)
    return dataclasses.replace(TINY, similar=grid, **changes)


def _how(**changes):
    return dataclasses.replace(QUIET, **changes)


@pytest.fixture(scope="module")
def finished(small_glyphs, tmp_path_factory):
    """Every treatment, one network at a time, frozen layers cached."""
    pytest.importorskip("matplotlib")
    workdir = tmp_path_factory.mktemp("study")
    return workdir, run(EVERY, workdir)


def _model(workdir, name):
    return load_model(member_folder(workdir, name), Tiny())


def _leaves(workdir, name):
    model = _model(workdir, name)
    head = {k: getattr(model.head, k) for k in ("weight", "bias")}
    tree = {"params": model.params, "state": model.state, "head": head}
    return {path: np.asarray(leaf) for path, leaf in flatten(tree).items()}


def _record(workdir, name):
    return read_json(member_folder(workdir, name) / "record.json")["record"]


def _losses(workdir, name):
    lines = read_metrics(member_folder(workdir, name))
    return [next(v for k, v in line.items() if k.endswith("/loss")) for line in lines]


def _assert_same(one, other, name, **close):
    """Networks, accuracies and losses are the same, bit for bit unless told."""
    ours, theirs = _leaves(one, name), _leaves(other, name)
    assert ours.keys() == theirs.keys()
    for path, leaf in ours.items():
        if close:
            np.testing.assert_allclose(leaf, theirs[path], err_msg=path, **close)
        else:
            np.testing.assert_array_equal(leaf, theirs[path], err_msg=path)
    for score in ("accuracy", "balanced_accuracy", "train_accuracy"):
        assert _record(one, name)[score] == _record(other, name)[score], name


SIMILAR = "similar-0A-seed0"


def test_every_treatment_trains_and_is_measured(finished):
    workdir, result = finished
    names = {row["member"] for row in result["rows"] if "member" in row}
    # Two halves with 4 networks and 5 treatments at 2 n, -keep1 at the first alone;
    # two with 3 networks; one with 3.
    assert len(names) == 2 * (4 + 5 * 2 + 1) + 2 * 3 + 3
    assert {p.name for p in (workdir / "members").iterdir()} == names
    for name in names:
        record = _record(workdir, name)
        assert record["steps"] == (3 if "base3" in name else 1) * STEPS or (
            not name.startswith("similar")
        )
        assert 0 <= record["accuracy"] <= 100 and record["trained_with"] == [name]
    assert result["data"] == "simulated" and result["seed"] == [0]
    assert result["config"]["net.name"] == "tests.tiny:Tiny"
    assert set(result["parts"]) == {"trainval", "test"}
    assert result["compilations"] > 0 and result["processes"] == 1


@pytest.mark.parametrize(
    ("kind", "n", "source", "copied", "frozen"),
    [
        ("BnB", 1, "self", 1, 1),
        ("BnB", 3, "self", 3, 3),
        ("BnB+", 1, "self", 1, 0),
        ("AnB", 1, "other", 1, 1),
        ("AnB", 3, "other", 3, 3),
        ("AnB+", 3, "other", 3, 0),
        ("BnB-keep1", 1, "self", 2, 1),
        ("AnB-thaw", 1, "other", 1, 0),
        ("base+", 0, "self", 3, 0),
    ],
)
def test_layers_are_copied_and_frozen_as_a_treatment_says(
    finished, kind, n, source, copied, frozen
):
    workdir, _ = finished
    name = f"{SIMILAR}-{kind}" + (f"-n{n}" if n else "")
    base = f"{SIMILAR if source == 'self' else 'similar-0B-seed0'}-base"
    ours, theirs = _leaves(workdir, name), _leaves(workdir, base)
    layers = ("conv1", "fc2", "fc3")
    taken = {path.split("/")[0] for path in _record(workdir, name)["taken"]}
    assert taken == {*layers[:copied]}
    for i, layer in enumerate(layers):
        for group in ("params", "state"):
            own = [path for path in ours if path.startswith(f"{group}/{layer}/")]
            assert own
            for path in own:
                same = (ours[path] == theirs[path]).all()
                assert same == (i < frozen), path
    assert not (ours["head/weight"] == theirs["head/weight"]).all()
    # Preprocessing goes with the layers.
    mean = [np.asarray(_model(workdir, x).pixels.mean) for x in (name, base)]
    np.testing.assert_array_equal(*mean)


def test_training_on_copies_starts_where_the_source_ended(
    finished, monkeypatch, tmp_path
):
    """base+ has the whole network of its source, with its head; BnB+ a new head."""
    workdir, _ = finished
    begun = {}
    real = batches_module.start_model

    def start_model(*args):
        model = real(*args)
        begun[len(begun)] = model
        return model

    monkeypatch.setattr(batches_module, "start_model", start_model)
    config = _only("base", "base+", "BnB+", threads=1)
    run(config, tmp_path)
    base = _model(tmp_path, f"{SIMILAR}-base")
    # Two base networks, two of base+, two of BnB+, in this order.
    again, tuned = begun[2], begun[4]
    for path, leaf in flatten(again.params).items():
        np.testing.assert_array_equal(leaf, flatten(base.params)[path])
    np.testing.assert_array_equal(again.head.weight, base.head.weight)
    np.testing.assert_array_equal(
        tuned.params["fc3"]["Dense_0"]["kernel"],
        base.params["fc3"]["Dense_0"]["kernel"],
    )
    assert (tuned.head.weight != base.head.weight).all()
    _assert_same(tmp_path, workdir, f"{SIMILAR}-base+")


def test_random_layers_stay_as_drawn_and_each_n_has_its_own(finished):
    from jaxfer.keys import key_of
    from jaxfer.models import init_model

    workdir, _ = finished
    kernels = []
    for n in (1, 3):
        name = f"untrained-0W-seed0-random-n{n}"
        drawn = init_model(Tiny(), (14, 14, 1), key_of(name))
        model = _model(workdir, name)
        for i, layer in enumerate(model.net.layers):
            leaves = flatten(drawn.params[layer])
            for path, leaf in flatten(model.params[layer]).items():
                assert (np.asarray(leaf) == leaves[path]).all() == (i < n), path
            for path, leaf in flatten(model.state[layer]).items():
                same = (np.asarray(leaf) == flatten(drawn.state[layer])[path]).all()
                assert same == (i < n), path
        kernels.append(np.asarray(model.params["conv1"]["Conv_0"]["kernel"]))
    assert (kernels[0] != kernels[1]).all()


def test_thawing_goes_through_stages(finished):
    workdir, _ = finished
    lines = read_metrics(member_folder(workdir, f"{SIMILAR}-AnB-thaw-n1"))
    phases = [next(k for k in line if k.endswith("/loss")) for line in lines]
    assert list(dict.fromkeys(phases)) == ["train1/loss", "train2/loss"]
    assert phases.count("train1/loss") == STEPS // 2


def test_models_of_members_predict(finished):
    workdir, _ = finished
    train = glyphs(alphabets=1)
    model = _model(workdir, f"{SIMILAR}-BnB-n3")
    assert model.about["member"] == f"{SIMILAR}-BnB-n3"
    images = np.asarray(train.images[:4, ::2, ::2])
    found = predict(model, images)
    assert set(found.names) <= {*model.class_names}
    assert len(model.class_names) == 8 and found.probabilities.shape == (4, 8)
    # A network of one's own is needed to read it; one of jaxfer.nets is not.
    with pytest.raises(ValueError, match="pass it as net="):
        load_model(member_folder(workdir, f"{SIMILAR}-base"))
    with pytest.raises(ValueError, match=r"expected .*'width': 4.*width=5"):
        load_model(member_folder(workdir, f"{SIMILAR}-base"), Tiny(5))
    pixels = load_model(member_folder(workdir, f"{SIMILAR}-pixels"))
    assert predict(pixels, images).probabilities.shape == (4, 8)


def test_a_study_is_no_model_and_its_members_are_listed(finished):
    workdir, _ = finished
    with pytest.raises(ValueError, match="is a study of several models: .*/members/"):
        load_model(workdir)


def test_figures_are_drawn(finished):
    workdir, _ = finished
    assert {p.name for p in (workdir / "figures").iterdir()} == {
        *(f"{name}.svg" for name in ("distance", "filters", "treatments")),
        *(f"{name}.png" for name in ("distance", "filters", "treatments")),
    }


def test_filters_are_shown_of_both_halves_and_of_an_untrained_network(finished):
    from experiments import plots
    from experiments.layer_transfer import figures

    with plots.style():
        figure = figures.filters(*finished)
    assert [axes.get_title("left") for axes in figure.axes] == [
        *("base network, half A", "base network, half B", "untrained")
    ]


# --- The same networks in other ways.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cache": False}, None),
        ({"run": _how(cache_limit=0.0)}, "activations after fc2 exceed the limit of 0"),
        pytest.param({"run": _how(steps_per_call=4)}, None, marks=pytest.mark.slow),
    ],
    ids=["uncached", "disk", "calls"],
)
def test_cached_activations_change_nothing(finished, tmp_path, capsys, changes, said):
    workdir, _ = finished
    run(_only("base", "AnB", **changes), tmp_path)
    assert said is None or said in capsys.readouterr().out
    name = f"{SIMILAR}-AnB-n3"
    _assert_same(tmp_path, workdir, name, rtol=1e-6, atol=1e-6)
    if "run" in changes:
        _assert_same(tmp_path, workdir, f"{SIMILAR}-base")
    assert not list(tmp_path.glob("members/*/prefix"))


def test_streamed_images_are_those_on_the_device(finished, tmp_path, capsys):
    pytest.importorskip("grain")
    workdir, _ = finished
    config = _only("base", "AnB+", run=_how(limit=0.0))
    run(dataclasses.replace(config, layers=(1,)), tmp_path)
    assert "is streamed" in capsys.readouterr().out
    for name in (f"{SIMILAR}-base", f"{SIMILAR}-AnB+-n1"):
        _assert_same(tmp_path, workdir, name)
        assert _losses(tmp_path, name) == _losses(workdir, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [{"population": 2}, {"mesh": Mesh(2)}], ids=lambda x: [*x][0]
)
def test_a_population_is_its_members(finished, tmp_path, how):
    """Two networks in one program, on one device and on two."""
    workdir, _ = finished
    run(_only("base", "AnB", **how), tmp_path)
    for kind in ("base", "AnB-n3"):
        names = [f"similar-0{half}-seed0-{kind}" for half in "AB"]
        assert _record(tmp_path, names[0])["trained_with"] == names
        for name in names:
            _assert_same(tmp_path, workdir, name, rtol=1e-4, atol=1e-5)
        alone = [_losses(workdir, name) for name in names]
        np.testing.assert_allclose(
            _losses(tmp_path, names[0]), np.mean(alone, axis=0), rtol=1e-5
        )


@pytest.mark.parametrize("model", [1, 2])
def test_one_network_may_spread_its_batch_over_devices(finished, tmp_path, model):
    """Sums in another order: 12 steps of SGD agree to 1e-4."""
    workdir, _ = finished
    run(_only("base", population=1, mesh=Mesh(2, model)), tmp_path)
    name = f"{SIMILAR}-base"
    assert _record(tmp_path, name)["trained_with"] == [name]
    np.testing.assert_allclose(
        _losses(tmp_path, name), _losses(workdir, name), rtol=1e-4
    )
    _assert_same(tmp_path, workdir, name, rtol=1e-3, atol=1e-4)


def test_devices_that_divide_no_batch_stand_idle(finished, tmp_path):
    """As those do that divide no population: a study does not stop for them."""
    workdir, _ = finished
    run(_only("base", population=1, mesh=Mesh(3)), tmp_path)
    _assert_same(tmp_path, workdir, f"{SIMILAR}-base")


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(finished, tmp_path, threads):
    """The study of the fixture has two threads, the default on one CPU device."""
    workdir, _ = finished
    run(_only("base", "BnB", "AnB", threads=threads), tmp_path)
    names = [p.name for p in (tmp_path / "members").iterdir()]
    assert len(names) == 6
    for name in names:
        _assert_same(tmp_path, workdir, name)
        assert _losses(tmp_path, name) == _losses(workdir, name)


# --- Kills, growth, and what is refused.


def _die(monkeypatch, *, save):
    """A kill right after so many saves; returns what takes the patch away."""
    real, saves = loop.Checkpoints.save, []

    def dying(self, *args, **how):
        real(self, *args, **how)
        saves.append(args[0])
        if len(saves) == save:
            raise MemoryError("killed")

    monkeypatch.setattr(loop.Checkpoints, "save", dying)
    return lambda: monkeypatch.setattr(loop.Checkpoints, "save", real)


@pytest.mark.parametrize(
    ("treatment", "layers", "how", "save"),
    [
        # Three saves of each network: steps 4, 8 and 12.
        ("AnB", (3,), {}, 8),
        ("AnB", (3,), {"cache_limit": 0.0}, 8),
        ("AnB-thaw", (1,), {}, 8),
        ("BnB+", (1,), {"limit": 0.0}, 2),
    ],
    ids=["cached", "disk", "thaw", "streamed"],
)
@pytest.mark.slow
def test_a_study_killed_within_a_network_ends_at_the_same_bits(
    finished, tmp_path, monkeypatch, capsys, treatment, layers, how, save
):
    whole, _ = finished
    config = _only("base", treatment, run=_how(save_every=4, **how), layers=layers)
    mend = _die(monkeypatch, save=save)
    with pytest.raises(MemoryError):
        run(dataclasses.replace(config, threads=1), tmp_path)
    mend()
    capsys.readouterr()
    run(config, tmp_path)
    shown = capsys.readouterr().out
    assert f"6 members, {(save - 1) // 3} of them done" in shown.replace("4 m", "6 m")
    assert "going on from step" in shown
    for name in (f"{SIMILAR}-base", f"{SIMILAR}-{treatment}-n{layers[0]}"):
        _assert_same(tmp_path, whole, name)
        assert _losses(tmp_path, name) == _losses(whole, name)
    for left in ("checkpoints", "prefix", "group.json"):
        assert not list(tmp_path.glob(f"members/*/{left}"))


KILLER = """
import os, signal, sys
from experiments.layer_transfer.__main__ import main
from jaxfer import loop

real, left = loop.Checkpoints.save, [int(sys.argv[1])]


def save(self, *args, **how):
    real(self, *args, **how)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)


loop.Checkpoints.save = save
sys.exit(main(sys.argv[2:]))
"""


# In the default run, tests of studies and of prototypes kill real processes.
@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(finished, tmp_path, data_dir):
    """On the command line, in a population of two that continues as one."""

    def process(saves, *options):
        (tmp_path / "config.py").write_text(
            "from tests.experiments.test_layer_transfer import KILLED as config\n"
        )
        argv = ["--config", str(tmp_path / "config.py"), *options]
        argv += ["--workdir", str(tmp_path / "run"), "--data.dir", str(data_dir)]
        flags = "--xla_backend_optimization_level=0"
        return subprocess.run(
            [sys.executable, "-c", KILLER, str(saves), *argv],
            cwd=ROOT,
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    killed = process(2, "--population", "2")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The group that was begun goes on as it is, whatever the population is now.
    again = process(99, "--population", "1")
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout
    assert "4 members, 0 of them done" in again.stdout
    run(dataclasses.replace(KILLED, population=2), tmp_path / "whole")
    names = [f"similar-0{half}-seed0-base" for half in "AB"]
    for name in names:
        assert _record(tmp_path / "run", name)["trained_with"] == names
        _assert_same(tmp_path / "run", tmp_path / "whole", name)
    name = f"{SIMILAR}-AnB-n3"
    assert _record(tmp_path / "run", name)["trained_with"] == [name]
    result = read_json(tmp_path / "run" / "result.json")
    assert len({row.get("member") for row in result["rows"]} - {None}) == 4


KILLED = _only("base", "AnB", run=_how(save_every=4))


def test_a_finished_study_says_so_and_grows(tmp_path, monkeypatch, capsys):
    from experiments.layer_transfer import train

    config = _only("base", "AnB")
    first = run(config, tmp_path)
    trained = []
    real = train.Trainer.train

    def counted(self, transfers, folder):
        trained.extend(transfer.name for transfer in transfers)
        return real(self, transfers, folder)

    monkeypatch.setattr(train.Trainer, "train", counted)
    # The same again, and a part of it.
    assert run(config, tmp_path)["metrics"] == first["metrics"]
    assert run(_only("base"), tmp_path)["metrics"] == first["metrics"]
    assert not trained
    assert capsys.readouterr().out.count("is finished") == 2
    # Another n.
    run(dataclasses.replace(config, layers=(3, 1)), tmp_path)
    assert sorted(trained) == [f"similar-0{half}-seed0-AnB-n1" for half in "AB"]
    trained.clear()
    # Another seed at one n: the result holds all that is there.
    seed = dataclasses.replace(config.similar, seeds=(1,))
    config = dataclasses.replace(config, similar=seed)
    result = run(config, tmp_path)
    names = [f"similar-0{half}-seed1-{k}" for half in "AB" for k in ("AnB-n3", "base")]
    assert sorted(trained) == sorted(names)
    assert result["lacking"] == [f"similar-0{half}-seed1-AnB-n1" for half in "AB"]
    assert result["config"]["similar.seeds"] == [0, 1] == result["seed"]
    counts = [result["metrics"][f"similar/n{n}/AnB/accuracy"]["n"] for n in (1, 3)]
    assert counts == [1, 2]
    old, new = (
        {r["member"]: r["value"] for r in x["rows"] if r["metric"] == "accuracy"}
        for x in (first, result)
    )
    assert old.items() <= new.items() and len(new) == 6 + 4
    # What is lacking is trained when it is asked for, and then the study is finished.
    trained.clear()
    whole = dataclasses.replace(config, similar=seed, layers=(1, 3))
    assert run(whole, tmp_path)["lacking"] == []
    assert len(trained) == 2 and "AnB-n1" in trained[0]
    capsys.readouterr()
    run(config, tmp_path)
    assert "is finished" in capsys.readouterr().out


def test_other_data_and_damaged_records_are_refused(finished, tmp_path, monkeypatch):
    config = _only("base")
    run(config, tmp_path)
    (tmp_path / "result.json").unlink()
    path = member_folder(tmp_path, f"{SIMILAR}-base") / "record.json"
    path.write_text(path.read_text().replace('"accuracy": ', '"accuracy": 1'))
    with pytest.raises(ValueError, match=f"the record {path} is damaged.*--redo"):
        run(config, tmp_path)
    run(dataclasses.replace(config, redo=True), tmp_path)
    _assert_same(tmp_path, finished[0], f"{SIMILAR}-base")
    (tmp_path / "result.json").unlink()
    real = studies.load_parts

    def other(*args, **how):
        train, test = real(*args, **how)
        pixels = np.array(test.images)
        pixels[0] ^= 1
        return train, dataclasses.replace(test, images=pixels)

    monkeypatch.setattr(studies, "load_parts", other)
    with pytest.raises(ValueError, match="was trained with data = "):
        run(config, tmp_path)


def test_augmented_images_are_not_cached_and_it_is_said_why(tmp_path, capsys):
    config = _only("base", "BnB", augment=Crop(1, True), epochs=1)
    run(dataclasses.replace(config, optim=Optim("sgd", 0.05)), tmp_path)
    assert "cannot cache activations of augmented images" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AlexNetSmall", "ResNet20", "Conv4"])
def test_networks_of_the_library_have_a_pulse(tmp_path, name):
    wide = {"dense": 8, "normalize": True} if name == "AlexNetSmall" else {}
    config = dataclasses.replace(
        _only("base", "AnB", layers=(2,), epochs=1),
        net=Network(name, width=2, **wide),
        data=Data("glyphs", classes=16),
        optim=Optim("adamw", 1e-3, clip=1.0),
    )
    result = run(config, tmp_path)
    assert result["metrics"]["similar/n2/AnB/accuracy"]["n"] == 1
    model = load_model(member_folder(tmp_path, f"{SIMILAR}-AnB-n2"))
    assert type(model.net.spec).__name__ == name
    assert jax.tree.leaves(model.params)
