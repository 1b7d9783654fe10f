"""The study as a queue: every kind of network, resumed, cached, over devices."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import layer_transfer
from experiments.layer_transfer_config import Config, Data, Grid, Network, Optim
from experiments.layer_transfer_members import groups, members
from experiments.layer_transfer_result import read_net
from jaxfer import loop
from jaxfer.data import Crop
from jaxfer.runlog import read_json, read_metrics
from jaxfer.trees import flatten

# One worker: the study they look at is made once.
pytestmark = [
    pytest.mark.usefixtures("small_glyphs"),
    pytest.mark.xdist_group("layer_transfer"),
]

TINY = Config(
    data=Data("glyphs", classes=16, side=14),
    net=Network(width=2, dense=8, dropout=0.2),
    optim=Optim(learning_rate=0.05),
    similar=Grid(
        splits=(0,), treatments=("base", "pixels", "BnB", "BnB+", "AnB", "AnB+")
    ),
    dissimilar=Grid("family", treatments=("base", "AnB")),
    untrained=Grid("whole", treatments=("base", "random")),
    layers=(1, 6),
    epochs=2,
    batch=20,
    save_every=6,
    log_every=1,
    figures=False,
)
NAMES = [f"class{i}" for i in range(10)]


def _only(*treatments, **changes):
    """The tiny study with one split's networks alone."""
    return dataclasses.replace(
        TINY, similar=Grid(splits=(0,), treatments=treatments), **changes
    )


def _accuracies(workdir):
    result = read_json(workdir / "result.json")
    return {m["name"]: m["accuracy"] for m in result["members"]}


@pytest.fixture(scope="module")
def finished(small_glyphs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study")
    config = dataclasses.replace(
        TINY,
        dissimilar=dataclasses.replace(TINY.dissimilar, splits=(0,)),
        untrained=dataclasses.replace(TINY.untrained, splits=(0,)),
        figures=True,
    )
    return config, workdir, layer_transfer.run(config, workdir)


def test_a_study_measures_every_network_and_draws_them(finished):
    config, workdir, result = finished
    names = {m["name"] for m in result["members"]}
    # 2 targets x (base, pixels, 4 treatments x 2), 2 x (base, 2 AnB), base and 2.
    assert len(names) == len(result["members"]) == 2 * 10 + 2 * 3 + 3
    metrics = result["metrics"]
    for kind in ("BnB", "BnB+", "AnB", "AnB+"):
        assert metrics[f"similar/n6/{kind}/accuracy"]["n"] == 2
        assert metrics[f"similar/n1/{kind}/minus_base"]["over"] == "targets"
    assert metrics["untrained/n6/random/accuracy"]["n"] == 1
    assert result["data"] == "simulated"
    assert sorted(p.name for p in (workdir / "figures").iterdir()) == [
        *("boosts.md", "distance.png", "filters.png", "treatments.png")
    ]
    cached = {m["treatment"] for m in result["members"] if m["cached"]}
    assert cached == {"BnB", "AnB", "random"}


def test_differences_are_paired_by_target_and_add_up(finished):
    _, _, result = finished
    accuracy = {m["name"]: m["accuracy"] for m in result["members"]}

    def of(kind):
        return [accuracy[f"similar-0{half}-seed0-{kind}"] for half in "AB"]

    base, bnb, anb = of("base"), of("BnB-n6"), of("AnB-n6")
    metrics = result["metrics"]
    place = "similar/n6/decoupling"
    assert metrics["similar/n6/AnB/minus_base"]["mean"] == pytest.approx(
        np.mean(np.subtract(anb, base))
    )
    assert metrics[f"{place}/co_adaptation"]["mean"] == pytest.approx(
        np.mean(np.subtract(base, bnb))
    )
    assert metrics[f"{place}/specificity"]["mean"] == pytest.approx(
        np.mean(np.subtract(bnb, anb))
    )
    assert metrics["similar/n6/AnB/relative_to_base"]["mean"] == pytest.approx(
        np.mean(100 * np.divide(anb, base))
    )
    found = result["findings"]["4/base"]["difference"]["mean"]
    both = [np.mean(pair) for pair in zip(of("AnB+-n1"), of("AnB+-n6"), strict=True)]
    assert found == pytest.approx(np.mean(np.subtract(both, base)))


def test_what_was_copied_is_written_down_and_is_frozen(finished):
    _, workdir, _ = finished
    folder = workdir / "members"
    copied = read_json(folder / "similar-0B-seed0-AnB-n1.json")["taken"]
    assert sorted(copied) == ["conv1/Conv_0/bias", "conv1/Conv_0/kernel"]
    untrained = read_net(folder / "untrained-0W-seed0-random-n6.npz")["params"]
    other = read_net(folder / "untrained-0W-seed0-random-n1.npz")["params"]
    name = "conv1/Conv_0/kernel"
    # Each n has a draw of its own.
    assert (flatten(untrained)[name] != flatten(other)[name]).all()


def test_a_finished_study_says_so_and_trains_nothing(finished, monkeypatch, capsys):
    config, workdir, result = finished
    monkeypatch.setattr(layer_transfer, "load_parts", None)
    assert layer_transfer.run(config, workdir)["metrics"] == result["metrics"]
    assert "is finished" in capsys.readouterr().out


def test_a_study_goes_on_where_it_was_killed(finished, tmp_path, monkeypatch, capsys):
    """Within a network, and between two: to the same bits."""
    config = _only("base", "BnB", "AnB+")
    _, whole, _ = finished
    real, saves = loop.Checkpoints.save, []

    def stop_within_the_second(self, step, *args, **kwargs):
        real(self, step, *args, **kwargs)
        saves.append(step)
        if saves.count(6) == 2:
            raise MemoryError("killed")

    monkeypatch.setattr(loop.Checkpoints, "save", stop_within_the_second)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path)
    done = len(list((tmp_path / "members").glob("*.json")))
    assert done == 1, "killed within the second network"
    monkeypatch.setattr(loop.Checkpoints, "save", real)
    layer_transfer.run(config, tmp_path)
    shown = capsys.readouterr().out
    assert "10 networks, 1 of them done" in shown and "going on from step" in shown
    ours, theirs = _accuracies(tmp_path), _accuracies(whole)
    assert ours and ours == {name: theirs[name] for name in ours}
    name = "similar-0B-seed0-base"
    for one, other in zip(
        *(
            flatten(read_net(w / "members" / f"{name}.npz")).items()
            for w in (tmp_path, whole)
        ),
        strict=True,
    ):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])
    losses = [
        [line["train/loss"] for line in read_metrics(w / "members" / name)]
        for w in (tmp_path, whole)
    ]
    assert losses[0] == losses[1]


def test_activations_on_the_disk_are_those_on_the_device(finished, tmp_path, capsys):
    _, whole, _ = finished
    config = _only("base", "AnB", cache_limit=0.0)
    layer_transfer.run(config, tmp_path)
    assert "GB of activations after conv5, above cache_limit" in capsys.readouterr().out
    ours, theirs = _accuracies(tmp_path), _accuracies(whole)
    assert ours == {name: theirs[name] for name in ours}
    name = "similar-0A-seed0-AnB-n6"
    losses = [
        [line["train/loss"] for line in read_metrics(w / "members" / name)]
        for w in (tmp_path, whole)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-6)
    assert not (tmp_path / "members" / name / "prefix").exists()


def test_without_the_cache_losses_are_the_same(finished, tmp_path):
    _, whole, _ = finished
    layer_transfer.run(_only("base", "AnB", cache=False), tmp_path)
    name = "similar-0A-seed0-AnB-n6"
    assert not read_json(tmp_path / "members" / f"{name}.json")["cached"]
    losses = [
        [line["train/loss"] for line in read_metrics(w / "members" / name)]
        for w in (tmp_path, whole)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_augmented_images_are_not_cached_and_it_is_said_why(tmp_path, capsys):
    config = _only("base", "BnB", augment=Crop(1, True), layers=(2,), epochs=1)
    config = dataclasses.replace(config, optim=Optim(warmup=0.0))
    layer_transfer.run(config, tmp_path)
    assert "cannot be cached of augmented images" in capsys.readouterr().out


def test_a_population_over_devices_is_its_members(finished, tmp_path):
    _, whole, _ = finished
    config = _only("base", "AnB", population=2, devices=2)
    layer_transfer.run(config, tmp_path)
    for name in ("similar-0A-seed0-base", "similar-0B-seed0-base"):
        ours, theirs = (
            flatten(read_net(w / "members" / f"{name}.npz")["params"])
            for w in (tmp_path, whole)
        )
        for path, leaf in ours.items():
            np.testing.assert_allclose(leaf, theirs[path], rtol=1e-3, atol=1e-5)
    record = read_json(tmp_path / "members" / "similar-0A-seed0-AnB-n6.json")
    assert len(record["trained_with"]) == 2
    with pytest.raises(ValueError, match="population = 3, needed a multiple of the 2"):
        other = dataclasses.replace(config, population=3)
        layer_transfer.run(other, tmp_path / "other")


def test_other_treatments_have_a_pulse(tmp_path):
    """Gradual unfreezing, preserved layers, and the controls."""
    config = _only("base", "base+", "base3", "AnB-thaw", "BnB-keep1", layers=(2,))
    layer_transfer.run(config, tmp_path / "eight")
    folder = tmp_path / "eight" / "members"
    lines = read_metrics(folder / "similar-0A-seed0-AnB-thaw-n2")
    phases = [next(k for k in line if k.endswith("/loss")) for line in lines]
    assert list(dict.fromkeys(phases)) == [f"train{i}/loss" for i in (1, 2, 3)]
    steps = {
        kind: read_json(folder / f"similar-0A-seed0-{kind}.json")["steps"]
        for kind in ("base", "base3", "AnB-thaw-n2")
    }
    assert steps["base3"] == 3 * steps["base"] == 3 * steps["AnB-thaw-n2"]
    kept = read_json(folder / "similar-0A-seed0-BnB-keep1-n2.json")["taken"]
    assert {path.split("/")[0] for path in kept} == {"conv1", "conv2", "conv3"}


@pytest.mark.parametrize(
    "kind",
    ["eight_batch_norm", pytest.param("resnet20", marks=pytest.mark.slow)],
)
def test_other_networks_have_a_pulse(tmp_path, kind):
    net = Network(kind, width=2, dense=8)
    optim = Optim("adamw", clip=1.0, warmup=0.0)
    config = _only("base", "AnB", net=net, optim=optim, layers=(2,), epochs=1)
    result = layer_transfer.run(config, tmp_path)
    assert result["metrics"]["similar/n2/AnB/accuracy"]["n"] == 2


def test_members_come_after_what_they_are_copied_from():
    config = dataclasses.replace(
        TINY, similar=dataclasses.replace(TINY.similar, splits=(0, 1), seeds=(0, 1))
    )
    queue = members(config, NAMES, 7)
    assert len({m.name for m in queue}) == len(queue) == 8 * 10
    seen = set()
    for m in queue:
        if m.source is not None:
            assert f"{m.source.name}-base" in seen, m.name
        seen.add(m.name)
    for m in queue:
        if m.kind.startswith("A"):
            assert not set(m.source.classes) & set(m.target.classes)
            assert m.source[:2] == m.target[:2] and m.source.seed == m.target.seed
    assert sum(map(len, groups(queue, 3))) == len(queue)
    for group in groups(queue, 3):
        assert len({(m.kind, m.n, len(m.target.classes)) for m in group}) == 1


def test_layers_are_kept_where_there_are_so_many():
    queue = members(_only("base", "AnB-keep1", layers=(5, 6, 7)), NAMES, 7)
    assert sorted({m.n for m in queue if m.n}) == [5, 6]


def test_a_members_draws_are_its_own_and_hang_on_its_name_alone():
    one, other = (
        members(_only(*kinds), NAMES, 7) for kinds in (["base"], ["base", "AnB"])
    )
    keys = {m.name: jax.random.key_data(m.key()).tolist() for m in other}
    assert len({tuple(k) for k in keys.values()}) == len(keys)
    for m in one:
        assert jax.random.key_data(m.key()).tolist() == keys[m.name]
