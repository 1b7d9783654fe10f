"""The imprinting study, small, against what its rows are by definition."""

import dataclasses
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import imprinting, imprinting_step
from experiments import members as networks
from experiments.backbone import Network, normalized
from experiments.imprinting_config import Config, Data, Optim, Rows
from experiments.imprinting_members import Member, members
from experiments.imprinting_result import ALONE, tables
from experiments.imprinting_rows import exemplars, imprinted, with_novel
from experiments.imprinting_step import (
    make_head,
)
from jaxfer import cosine_head, head_logits, nets
from jaxfer.data import Crop
from jaxfer.runlog import read_json

pytestmark = pytest.mark.usefixtures("small_glyphs")

TINY = Config(
    data=Data("glyphs", classes=16, base=12, side=14),
    net=Network(),
    augment=Crop(1),
    copies=2,
    dim=8,
    batch=24,
    epochs=3,
    optim=Optim(learning_rate=0.2),
    finetune=Optim("rmsprop", 0.01, head_rate=10.0, schedule="stairs"),
    finetune_epochs=2,
    transfer_steps=4,
    shots=(1, 3),
    seeds=(0, 1),
    tuned=Rows((3,), (0,)),
    transfer=Rows((3,), (0,)),
    joint=Rows((3,), (1,)),
    dims=(4,),
    losses=("lifted",),
    side_shots=(3,),
    log_every=5,
)


NOT_TRAINED = ("Rand-noFT", "Imprinting", "Imprinting + Aug", "nearest neighbour")


@pytest.fixture(scope="module", autouse=True)
def linear_net(forgotten):
    """What is tested here is not the network, so one that compiles at once."""
    forgotten.setattr(imprinting_step, "make_net", lambda net, dim: nets.linear(dim))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_glyphs):
    workdir = tmp_path_factory.mktemp("imprinting")
    return imprinting.run(TINY, workdir), workdir


def test_a_study_measures_every_row(finished):
    result, workdir = finished
    rows = {}
    for name, entry in result["metrics"].items():
        split, n, row, metric = name.split("/")
        assert split == "12+4" and 0 <= entry["mean"] <= 100
        rows.setdefault((row, n), {})[metric] = entry["n"]
    both, one = {"base": 2, "novel": 2, "all": 2, "harmonic": 2}, dict.fromkeys
    for row in ("rand_noft", "imprinting", "imprinting_aug", "nearest"):
        assert rows[row, "n1"] == rows[row, "n3"] == both
    assert rows["rand_ft", "n3"] == rows["joint", "n3"] == one(both, 1)
    assert rows["imprinting_d4", "n1"] == rows["joint_d4", "n3"] == one(both, 1)
    alone = ["rand_noft", "imprinting", "imprinting_aug"]
    for row in (
        "softmax_average",
        "softmax_nearest",
        *(ALONE + x for x in alone),
    ):
        assert rows[row, "n3"] == {"novel": 2}
    for row in ("lifted_average", "lifted_nearest"):
        assert rows[row, "n1"] == {"novel": 1}
    for row in ("transfer_rand_ft", "transfer_imprinting_ft"):
        assert rows[row, "n3"] == {"novel": 1}
    assert result["data"] == "simulated" and result["seed"] == [0, 1]
    assert read_json(workdir / "result.json") == result


def test_a_finished_study_says_so(finished, capsys):
    result, workdir = finished
    assert imprinting.run(TINY, workdir) == result
    assert "is finished" in capsys.readouterr().out


def _data(seed):
    """Images and labels by the definition, from the data set itself."""
    train, test = imprinting.load_parts(TINY.data)
    order = np.random.RandomState([seed]).permutation(16)  # noqa: NPY002
    place = {c: i for i, c in enumerate(order)}
    labels = [np.array([place[c] for c in x.labels]) for x in (train, test)]
    return train, test, order, *labels


def _embedder(workdir, seed):
    net = networks.read_net(workdir / "members" / f"seed{seed}-base-softmax-d8.npz")
    w = net["params"]["net"]["fc"]["Dense_0"] if "fc" in net["params"]["net"] else None
    if w is None:
        (layer,) = net["params"]["net"].values()
        (w,) = layer.values()

    def embed(images):
        x = (images.astype(np.float64) - net["centre"]) * net["scale"]
        return x.reshape(len(x), -1) @ w["kernel"] + w["bias"]

    return net, embed


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_without_training_are_their_definitions(finished, seed):
    _, workdir = finished
    train, test, order, _, labels = _data(seed)
    net, embed = _embedder(workdir, seed)
    record = read_json(workdir / "members" / f"seed{seed}-base-softmax-d8.json")
    z = _unit(embed(np.asarray(test.images)))
    base = _unit(net["params"]["head"]["weight"])
    for n in (1, 3):
        few = []
        for c in order[12:]:
            draw = np.random.RandomState([seed, c])  # noqa: NPY002
            own = draw.permutation(np.flatnonzero(train.labels == c))[:n]
            few.append(_unit(embed(np.asarray(train.images)[own])))
        few = np.stack(few)
        imprinted = np.concatenate([base, _unit(few.mean(axis=1))])
        nearest = np.concatenate([base @ z.T, (few @ z.T).max(axis=1)]).argmax(axis=0)
        for row, predicted in (
            ("imprinting", (z @ imprinted.T).argmax(axis=1)),
            ("nearest", nearest),
        ):
            expected = 100 * np.mean((predicted == labels)[labels >= 12])
            found = record["rows"][row][str(n)]
            assert found["novel"] == pytest.approx(expected), (row, n)
            hits = 100 * np.mean((predicted == labels)[labels < 12])
            assert found["base"] == pytest.approx(hits), (row, n)
        alone = 12 + (z[labels >= 12] @ imprinted[12:].T).argmax(axis=1)
        expected = 100 * np.mean(alone == labels[labels >= 12])
        for row in ("softmax_average", "transfer_imprinting"):
            found = record["rows"][row][str(n)]["novel"]
            assert found == pytest.approx(expected), (row, n)
    known = (z @ base.T).argmax(axis=1) == labels
    assert record["rows"]["base_classifier"]["0"]["base"] == pytest.approx(
        100 * known[labels < 12].mean()
    )


def test_the_last_epoch_is_reported_and_no_better_one(finished):
    # Peers choose the epoch on the test images.
    _, workdir = finished
    for name in ("seed0-imprinting_ft-n3-softmax-d8", "seed1-joint-n3-linear-d8"):
        record = read_json(workdir / "members" / f"{name}.json")
        (scores,) = next(iter(record["rows"].values())).values()
        epochs = record["epochs"]
        assert len(epochs) == (2 if "ft" in name else 5)
        assert scores == {k: epochs[-1][k] for k in scores}


def test_a_killed_study_goes_on_to_the_same_bits(finished, tmp_path, kill_imprinting):
    _, whole = finished
    few = dataclasses.replace(
        TINY,
        seeds=(0,),
        dims=(),
        losses=(),
        side_shots=(),
        joint=Rows((), ()),
        save_every=5,
    )
    kill_imprinting(few, tmp_path, call=27)
    imprinting.run(few, tmp_path)
    for name in ("seed0-base-softmax-d8", "seed0-imprinting_ft-n3-softmax-d8"):
        one, other = (
            read_json(folder / "members" / f"{name}.json")
            for folder in (tmp_path, whole)
        )
        assert one["rows"] == other["rows"]
    nets_ = [
        np.load(folder / "members" / "seed0-base-softmax-d8.npz")
        for folder in (tmp_path, whole)
    ]
    for name in nets_[0].files:
        np.testing.assert_array_equal(nets_[0][name], nets_[1][name])


def test_networks_of_other_data_are_refused(finished, tmp_path):
    _, whole = finished
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "config.json").unlink()
    other = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, side=7))
    with pytest.raises(
        ValueError, match="seed0-base-softmax-d8 .* was trained on data"
    ):
        imprinting.run(other, tmp_path / "run")


@pytest.mark.parametrize("per_class", [False, True])
def test_a_trained_head_gets_rows_and_keeps_its_own(rng, per_class):
    known = cosine_head(jax.random.key(0), 4, 3)
    if per_class:
        known = dataclasses.replace(known, scale=jnp.array([6.0, 9.0, 12.0]))
    drawn = cosine_head(jax.random.key(1), 4, 5, scale=99.0)
    z = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    both, alone = with_novel(known, drawn), with_novel(known, drawn, alone=True)
    assert alone.num_classes == 5
    np.testing.assert_array_equal(both.weight[:3], known.weight)
    np.testing.assert_array_equal(both.weight[3:], drawn.weight[3:])
    some = exemplars(known, z)
    assert some.num_classes == both.num_classes == 5
    logits = np.asarray(head_logits(known, z[0]))
    for head in (both, some, imprinted(both, z, jnp.array([3, 3, 3, 4, 4, 4]))):
        np.testing.assert_allclose(
            head_logits(head, z[0])[:, :3], logits, rtol=1e-6, atol=1e-6
        )
    new = 9 if per_class else 10
    assert np.ravel(both.scale)[-1] == np.ravel(alone.scale)[-1] == new
    # An exemplar is its own nearest neighbour.
    np.testing.assert_allclose(head_logits(some, z[1])[:, 4], new, rtol=1e-5)


def test_names_tell_networks_apart_and_sources_come_first():
    queue = members(TINY)
    names = [m.name for m in queue]
    assert len(set(names)) == len(names) == 2 + 2 + 2 + 2 + 2 + 1
    for i, member in enumerate(queue):
        assert member.source is None or member.source in queue[:i]
    assert make_head({"weight": jnp.ones((2, 3))}, "proxy_nca").unit
    one = Member(0, "rand_ft", 3, 8, "softmax")
    assert one.source == Member(0, "base", 0, 8, "softmax")
    assert (one.key() != one._replace(seed=1).key()).any()


def test_tables_keep_classifiers_of_novel_classes_apart(finished):
    result, _ = finished
    shown = dict(
        (lines[0].split("|")[1].strip(), [x.split("|")[1].strip() for x in lines[2:]])
        for lines in (part.splitlines() for part in tables(result).split("\n\n"))
    )
    assert [*shown] == ["novel", "base", "all", "harmonic", "novel alone"]
    both = [*NOT_TRAINED, "AllClassJoint"]
    assert shown["all"] == [
        *(*NOT_TRAINED, "Rand + FT", "Imprinting + FT"),
        *("AllClassJoint", "AllClassJoint, cosine head"),
        *(f"{row}, 4 dimensions" for row in both),
        *(f"{row}, 8 dimensions" for row in NOT_TRAINED),
    ]
    # Of the dimension and the loss that all have, those of the seeds that others have.
    metrics = result["metrics"]
    assert [metrics[f"12+4/n1/imprinting{x}/all"]["n"] for x in ("", "_d8", "_d4")] == [
        *(2, 1, 1)
    ]
    assert shown["novel"] == shown["all"]
    assert {"softmax_nearest", "lifted_average", "Imprinting + Aug", "Rand + FT"} < {
        *shown["novel alone"]
    }


def test_pixels_are_those_of_base_classes(finished):
    _, workdir = finished
    train, _, order, *_ = _data(0)
    net, _ = _embedder(workdir, 0)
    known = np.asarray(train.images)[np.isin(train.labels, order[:12])]
    np.testing.assert_allclose(net["centre"], known.mean(axis=0), rtol=1e-5)
    x = normalized(jnp.asarray(known), jnp.asarray(net["centre"]), net["scale"])
    assert float(x.std()) < 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shots", "1", "40"], "class .* has 15 examples, needed n = 40"),
        (["--data.base", "16"], "found 16 base classes, needed 1 to 15 of the 16"),
        (["--tuned.seeds", "7"], r"\[7\] in tuned.seeds, needed some of seeds"),
        (["--shots", "1", "1"], r"shots = \[1, 1\], needed different ones"),
        (["--shots", "0"], r"shots = \[0\], needed at least 1"),
        (["--dims", "64"], "64 in dims, needed others than dim = 64"),
        (["--losses", "softmax"], "'softmax' in losses, needed others"),
        (["--side-shots", "2"], r"side_shots = \[2\] and no dims, needed the dimens"),
        (["--augment.side", "15"], "window of 15 pixels a side and images of 14x14"),
        (["--data.min-images", "99"], "15 images in the largest class of glyphs"),
        (
            ["--data.base-min-images", "9"],
            "found 16 of 16 classes with data.base_min_images = 9 training images",
        ),
        (["--losses", "nca", "--group", "5"], "needed a multiple of group = 5"),
        (
            ["--batch", "900", "--group", "2"],
            "180 examples of base classes, needed at least a batch",
        ),
        (["--optim.warmup", "1"], "optim.warmup = 1.0, needed 0 up to, not with, 1"),
        (["--losses", "lifted", "--group", "16"], "has 15 images, needed shot"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.imprinting_config import *\n"
        "data, few = Data('glyphs', classes=16, base=12, side=14), Rows((1,), (0,))\n"
        "config = Config(data, tuned=few, transfer=few, joint=few, shots=(1, 5))\n"
    )
    line = ["--config", str(config), "--workdir", str(tmp_path / "run"), *options]
    with pytest.raises(SystemExit) as e:
        imprinting.main(line)
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert e.value.code == 2 and shown.startswith("error: ")
    assert re.search(message, shown), shown
