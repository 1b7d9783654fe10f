"""The study as a queue: every kind of network, resumed, cached, over devices."""

import dataclasses

import numpy as np
import pytest
from flax import linen as nn

from experiments import layer_transfer
from experiments import members as networks
from experiments.layer_transfer_config import Config, Data, Grid, Network, Optim
from experiments.members import read_net
from jaxfer import loop, nets
from jaxfer.data import Crop
from jaxfer.nets.layers import Classifier
from jaxfer.runlog import read_json, read_metrics
from jaxfer.trees import flatten

pytestmark = pytest.mark.usefixtures("small_glyphs")

TINY = Config(
    data=Data("glyphs", classes=16, side=14),
    net=Network(width=3, dense=9, dropout=0.2),
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


class _Layer(nn.Module):
    """A strided convolution, or a dense layer with dropout."""

    width: int
    conv: bool = False
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x, mode):
        if self.conv:
            x = nn.Conv(self.width, (3, 3), strides=4)(x)
        else:
            x = nn.Dense(self.width)(x)
        x = nn.relu(x.reshape(len(x), -1))
        return nn.Dropout(self.dropout, deterministic=not mode.dropout)(x)


def _eight(outputs, *, width, dense, dropout, normalize, dtype):
    assert not normalize
    layers = [("conv1", _Layer(width, conv=True))]
    layers += [(f"conv{i}", _Layer(dense)) for i in range(2, 6)]
    layers += [(name, _Layer(dense, dropout=dropout)) for name in ("fc6", "fc7")]
    return nets.chain([*layers, ("fc8", Classifier(outputs))], classifier=True)


@pytest.fixture(scope="module", autouse=True)
def small_net(forgotten):
    """Eight layers that compile fast: what is tested here is not the network."""
    forgotten.setattr(nets, "eight_layers", _eight)


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


def test_what_was_copied_is_written_down_and_each_n_draws_anew(finished):
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


def _losses(workdir, name):
    lines = read_metrics(workdir / "members" / name)
    return [next(v for k, v in line.items() if k.endswith("/loss")) for line in lines]


def _stop_at(monkeypatch, step, member):
    """A kill right after a save of the n-th network that gets so far."""
    real, saves = loop.Checkpoints.save, []

    def save(self, number, *args, **kwargs):
        real(self, number, *args, **kwargs)
        saves.append(number)
        if saves.count(step) == member:
            raise MemoryError("killed")

    monkeypatch.setattr(loop.Checkpoints, "save", save)
    return lambda: monkeypatch.setattr(loop.Checkpoints, "save", real)


def _assert_same_networks(one, other, *names):
    for name in names:
        assert _losses(one, name) == _losses(other, name), name
        if (one / "members" / f"{name}.npz").exists():
            ours, theirs = (
                flatten(read_net(w / "members" / f"{name}.npz")) for w in (one, other)
            )
            assert ours.keys() == theirs.keys()
            for path, leaf in ours.items():
                np.testing.assert_array_equal(leaf, theirs[path])


def test_a_study_killed_within_a_network_goes_on_to_the_same_bits(
    finished, tmp_path, monkeypatch, capsys
):
    config = _only("base", "BnB", "AnB+")
    _, whole, _ = finished
    go_on = _stop_at(monkeypatch, step=6, member=2)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path)
    assert len(list((tmp_path / "members").glob("*.json"))) == 1
    go_on()
    layer_transfer.run(config, tmp_path)
    shown = capsys.readouterr().out
    assert "10 networks, 1 of them done" in shown and "going on from step 6" in shown
    ours, theirs = _accuracies(tmp_path), _accuracies(whole)
    assert ours and ours == {name: theirs[name] for name in ours}
    _assert_same_networks(tmp_path, whole, *ours)
    assert not list((tmp_path / "members").glob("*/checkpoints"))


def test_a_study_killed_between_networks_trains_only_the_others(
    finished, tmp_path, monkeypatch, capsys
):
    config = _only("base", "BnB")
    _, whole, _ = finished
    real, written = networks.write_member, []

    def write(folder, name, *args):
        real(folder, name, *args)
        written.append(name)
        if len(written) == 3:
            raise MemoryError("killed")

    monkeypatch.setattr(networks, "write_member", write)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path)
    layer_transfer.run(config, tmp_path)
    assert "6 networks, 3 of them done" in capsys.readouterr().out
    assert len(written) == len(set(written)) == 6
    _assert_same_networks(tmp_path, whole, *written)
    assert not list((tmp_path / "members").glob("*/checkpoints"))


@pytest.mark.parametrize("limit", [0.0, 2.0], ids=["disk", "device"])
def test_cached_networks_go_on_after_a_kill(
    finished, tmp_path, monkeypatch, capsys, limit
):
    """And activations on the disk are those on the device."""
    _, whole, _ = finished
    config = _only("base", "AnB", layers=(6,), cache_limit=limit)
    go_on = _stop_at(monkeypatch, step=6, member=3)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path)
    go_on()
    layer_transfer.run(config, tmp_path)
    shown = capsys.readouterr().out
    told = "GB of activations after conv5, above cache_limit" in shown
    assert told == (limit == 0) and "going on from step 6" in shown
    name = "similar-0A-seed0-AnB-n6"
    np.testing.assert_allclose(_losses(tmp_path, name), _losses(whole, name), rtol=1e-6)
    assert _accuracies(tmp_path)[name] == _accuracies(whole)[name]
    assert not list((tmp_path / "members").glob("*/prefix"))


def test_thawing_networks_go_on_after_a_kill(tmp_path, monkeypatch):
    """Two on two devices, in the second partition, whose state is of another shape."""
    config = _only("base", "AnB-thaw", layers=(2,), save_every=2, devices=2)
    layer_transfer.run(config, tmp_path / "whole")
    # Of 12 steps, 4 to 8 train with one layer frozen. The base networks come first.
    go_on = _stop_at(monkeypatch, step=6, member=2)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path / "parts")
    assert len(list((tmp_path / "parts" / "members").glob("*.json"))) == 2
    go_on()
    layer_transfer.run(config, tmp_path / "parts")
    folders = {p.name for p in (tmp_path / "whole" / "members").iterdir() if p.is_dir()}
    _assert_same_networks(tmp_path / "whole", tmp_path / "parts", *folders)
    ours, theirs = (_accuracies(tmp_path / x) for x in ("whole", "parts"))
    assert ours == theirs
    name = next(name for name in folders if "thaw" in name)
    lines = read_metrics(tmp_path / "whole" / "members" / name)
    phases = [next(k for k in line if k.endswith("/loss")) for line in lines]
    assert list(dict.fromkeys(phases)) == [f"train{i}/loss" for i in (1, 2, 3)]


def test_without_the_cache_losses_are_the_same(finished, tmp_path):
    """Relative 1e-5 over all the steps of SGD."""
    _, whole, _ = finished
    layer_transfer.run(_only("base", "AnB", cache=False, layers=(6,)), tmp_path)
    name = "similar-0A-seed0-AnB-n6"
    assert not read_json(tmp_path / "members" / f"{name}.json")["cached"]
    np.testing.assert_allclose(_losses(tmp_path, name), _losses(whole, name), rtol=1e-5)


def test_augmented_images_are_not_cached_and_it_is_said_why(tmp_path, capsys):
    config = _only("base", "BnB", augment=Crop(1, True), layers=(2,), epochs=1)
    config = dataclasses.replace(config, optim=Optim(warmup=0.0))
    layer_transfer.run(config, tmp_path)
    assert "cannot be cached of augmented images" in capsys.readouterr().out


def test_a_population_over_devices_is_its_members(finished, tmp_path):
    """Four of which two devices take two each; two, of which four devices one each."""
    _, whole, _ = finished
    config = _only("base", "AnB", population=4, devices=4, layers=(6,))
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
    (folder,) = (tmp_path / "members").glob("similar-0A-seed0-AnB-n6-*/")
    alone = [_losses(whole, f"similar-0{half}-seed0-AnB-n6") for half in "AB"]
    np.testing.assert_allclose(
        _losses(tmp_path, folder.name), np.mean(alone, axis=0), rtol=1e-4
    )


def test_networks_of_other_data_are_not_gone_on_with(finished, tmp_path, monkeypatch):
    config = _only("base", "BnB", layers=(6,))
    go_on = _stop_at(monkeypatch, step=6, member=2)
    with pytest.raises(MemoryError):
        layer_transfer.run(config, tmp_path)
    go_on()
    real = layer_transfer.load_parts

    def other(config):
        train, test = real(config)
        pixels = np.array(test.images)
        pixels[0] ^= 1
        return train, dataclasses.replace(test, images=pixels)

    monkeypatch.setattr(layer_transfer, "load_parts", other)
    with pytest.raises(ValueError, match="0A-seed0-base .* was trained on data and cl"):
        layer_transfer.run(config, tmp_path)


def test_other_treatments_have_a_pulse(tmp_path):
    """Preserved layers, and the controls."""
    config = _only("base", "base+", "base3", "BnB-keep1", layers=(2,))
    layer_transfer.run(config, tmp_path / "eight")
    folder = tmp_path / "eight" / "members"
    taken = {
        kind: read_json(folder / f"similar-0A-seed0-{kind}.json")["steps"]
        for kind in ("base", "base+", "base3")
    }
    assert taken["base3"] == 3 * taken["base"] == 3 * taken["base+"]
    kept = read_json(folder / "similar-0A-seed0-BnB-keep1-n2.json")["taken"]
    assert {path.split("/")[0] for path in kept} == {"conv1", "conv2", "conv3"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eight_batch_norm", "resnet20"])
def test_other_networks_have_a_pulse(tmp_path, kind):
    net = Network(kind, width=2, dense=8)
    optim = Optim("adamw", clip=1.0, warmup=0.0)
    config = _only("base", "AnB", net=net, optim=optim, layers=(2,), epochs=1)
    result = layer_transfer.run(config, tmp_path)
    assert result["metrics"]["similar/n2/AnB/accuracy"]["n"] == 2
