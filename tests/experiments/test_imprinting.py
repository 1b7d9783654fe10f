"""A small imprinting study: its rows against their definitions, its result."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.imprinting import report
from experiments.imprinting.config import Config, Data, Network, Rows
from experiments.imprinting.members import ALONE, networks
from experiments.imprinting.run import run
from experiments.imprinting.train import Trainer
from experiments.inputs import load_parts
from experiments.options import Mesh
from jaxfer import cosine_head, models, normalize, squared_euclidean
from jaxfer.data import Crop, random_crop
from jaxfer.keys import COPIES, CROP, DROPOUT, HEAD, INIT, ORDER, key_of
from jaxfer.losses import lifted_structured_loss, nca_loss
from jaxfer.models import Options
from jaxfer.optim import Optim
from jaxfer.runlog import read_json, read_metrics, read_result
from jaxfer.study import member_folder
from jaxfer.trees import flatten

pytestmark = pytest.mark.usefixtures("small_glyphs")

# What is tested here is not the network, so it is one that compiles at once.
TINY = Config(
    data=Data("glyphs", classes=16, base=12, side=14),
    net=Network("Flatten"),
    augment=Crop(1),
    copies=2,
    dim=8,
    batch=24,
    epochs=3,
    optim=Optim("adam", 0.01),
    finetune=Optim("rmsprop", 0.01, head_rate=10.0),
    finetune_epochs=2,
    transfer_steps=20,
    shots=(1, 3),
    seeds=(0, 1),
    tuned=Rows((1, 3), (0,)),
    transfer=Rows((3,), (0,)),
    joint=Rows((3,), (1,)),
    dims=(4,),
    losses=("lifted", "nca", "proxy_nca"),
    side_shots=(3,),
    run=Options(save_every=0, log_every=5, progress=False),
)
NOT_TRAINED = ("Rand-noFT", "Imprinting", "Imprinting + Aug", "nearest neighbour")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_glyphs):
    """The result, the folder, and what each training was called with, by member."""
    workdir, calls = tmp_path_factory.mktemp("imprinting"), {}
    real = models.train_population

    def spy(net, images, members, recipe, **how):
        calls[how["workdir"].name] = (members[0], how["heads"][0], how["starts"][0])
        return real(net, images, members, recipe, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "train_population", spy)
        result = run(TINY, workdir)
    return result, workdir, calls


def _record(workdir, name):
    return read_json(member_folder(workdir, name) / "record.json")["record"]


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _data(seed):
    """Images with labels by their definition, and the order of the classes."""
    train, test = load_parts(TINY.data)
    order = np.random.RandomState([seed]).permutation(16)  # noqa: NPY002
    place = {c: i for i, c in enumerate(order)}
    labels = np.array([place[c] for c in test.labels])
    return (
        np.asarray(train.images),
        train.labels,
        np.asarray(test.images),
        labels,
        order,
    )


def _few(labels, order, seed, n):
    """`[novel, n]`, rows of the novel examples by their definition."""
    few = []
    for c in order[12:]:
        draw = np.random.RandomState([seed, c])  # noqa: NPY002
        few.append(draw.permutation(np.flatnonzero(labels == c))[:n])
    return np.stack(few)


def _linear(model, x):
    """The embeddings of prepared images, computed in NumPy."""
    own = {k.split("/")[-1]: np.asarray(v) for k, v in flatten(model.params).items()}
    return np.asarray(x, np.float64).reshape(len(x), -1) @ own["kernel"] + own["bias"]


def _prepared(model, images):
    mean, std = np.asarray(model.pixels.mean), np.asarray(model.pixels.std)
    return (images.astype(np.float64) - mean) / std


def test_a_study_measures_every_row(finished):
    result, workdir, _ = finished
    rows = {}
    for name, entry in result["metrics"].items():
        split, n, row, metric = name.split("/")
        assert split == "12+4" and 0 <= entry["mean"] <= 100
        rows.setdefault((row, n), {})[metric] = entry["n"]
    parts = ("base", "novel", "all")
    every = (*parts, *(f"{part}_balanced" for part in parts), "harmonic")
    for row in ("rand_noft", "imprinting", "imprinting_aug", "nearest"):
        assert rows[row, "n1"] == rows[row, "n3"] == dict.fromkeys(every, 2)
    for row in ("rand_ft", "imprinting_ft", "joint", "joint_cosine", "joint_d4"):
        assert rows[row, "n3"] == dict.fromkeys(every, 1)
    assert rows["imprinting_d4", "n1"] == dict.fromkeys(every, 1)
    alone = ("novel", "novel_balanced")
    for row in ("rand_noft", "imprinting", "imprinting_aug"):
        assert rows[ALONE + row, "n3"] == dict.fromkeys(alone, 2)
    for row in ("rand_ft", "imprinting_ft"):
        assert rows[ALONE + row, "n3"] == dict.fromkeys(alone, 1)
    for loss in ("softmax", *TINY.losses):
        for row in (f"{loss}_average", f"{loss}_nearest"):
            seeds = 2 if loss == "softmax" else 1
            assert rows[row, "n1"] == dict.fromkeys(alone, seeds)
    # Base networks of other losses are not among them.
    known = dict.fromkeys(("base", "base_balanced"), 2)
    assert rows["base_classifier", "n0"] == known
    assert result["data"] == "simulated" and result["seed"] == [0, 1]
    assert read_result(workdir) == result


def test_a_finished_study_says_so(finished, capsys):
    result, workdir, _ = finished
    assert run(TINY, workdir) == result
    assert "is finished" in capsys.readouterr().out


def test_the_result_lists_base_and_novel_classes(finished):
    result, _, _ = finished
    train, _ = load_parts(TINY.data)
    for seed in (0, 1):
        *_, order = _data(seed)
        names = [train.class_names[c] for c in order]
        expected = {"base": names[:12], "novel": names[12:]}
        assert result["classes"][str(seed)] == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_rows_without_training_are_their_definitions(finished, seed):
    _, workdir, _ = finished
    images, own, tests, labels, order = _data(seed)
    name = f"seed{seed}-base-softmax-d8"
    model = models.load_model(member_folder(workdir, name))
    z = _unit(_linear(model, _prepared(model, tests)))
    base = _unit(np.asarray(model.head.weight))
    novel, key = labels >= 12, key_of(name)
    drawn = cosine_head(jax.random.fold_in(key, HEAD), 8, 16).weight[12:]
    drawn = _unit(np.asarray(drawn))
    for n in (1, 3):
        at = _few(own, order, seed, n)
        few = _unit(_linear(model, _prepared(model, images[at.ravel()])))
        few = few.reshape(4, n, 8)
        moved = []
        for copy in range(2):
            mine = jax.random.fold_in(jax.random.fold_in(key, COPIES), copy)
            keys = jnp.stack([jax.random.fold_in(mine, row) for row in at.ravel()])
            x = jnp.asarray(_prepared(model, images[at.ravel()]), jnp.float32)
            moved.append(_unit(_linear(model, random_crop(keys, x, Crop(1)))))
        moved = np.stack(moved).reshape(2, 4, n, 8).mean(axis=(0, 2))
        rows = {
            "rand_noft": drawn,
            "imprinting": _unit(few.mean(axis=1)),
            "imprinting_aug": _unit(moved),
        }
        predicted = {
            row: (z @ np.concatenate([base, mine]).T).argmax(axis=1)
            for row, mine in rows.items()
        }
        nearest = (few @ z.T).max(axis=1)
        predicted["nearest"] = np.concatenate([base @ z.T, nearest]).argmax(axis=0)
        record = _record(workdir, f"seed{seed}-measure-n{n}-softmax-d8")
        for row, found in predicted.items():
            hits = found == labels
            for part, chosen in (
                ("novel", novel),
                ("base", ~novel),
                ("all", labels >= 0),
            ):
                expected = 100 * hits[chosen].mean()
                assert record["rows"][row][part] == pytest.approx(expected), (row, n)
        alone = 12 + (z[novel] @ rows["imprinting"].T).argmax(axis=1)
        expected = 100 * np.mean(alone == labels[novel])
        for row in ("softmax_average", "transfer_imprinting"):
            assert record["rows"][row]["novel"] == pytest.approx(expected), (row, n)
        alone = 12 + nearest.argmax(axis=0)[novel]
        expected = 100 * np.mean(alone == labels[novel])
        assert record["rows"]["softmax_nearest"]["novel"] == pytest.approx(expected)
    hits = (z @ base.T).argmax(axis=1) == labels
    assert _record(workdir, name)["rows"]["base_classifier"]["base"] == pytest.approx(
        100 * hits[~novel].mean()
    )


def test_keys_of_augmented_copies_differ_from_all_other_uses():
    assert len({INIT, HEAD, ORDER, DROPOUT, CROP, COPIES}) == 6
    key = key_of("seed0-base-softmax-d8")
    copies = jax.random.fold_in(key, COPIES)
    keys = [key, *(jax.random.fold_in(key, i) for i in range(200))]
    keys += [jax.random.fold_in(copies, i) for i in range(5)]
    data = {tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in keys}
    assert len(data) == len(keys)


@pytest.mark.parametrize("prefix", ["", ALONE])
@pytest.mark.parametrize("row", ["rand_ft", "imprinting_ft"])
def test_fine_tuning_starts_from_the_base_network_and_the_right_rows(
    finished, prefix, row
):
    _, workdir, calls = finished
    name = f"seed0-{prefix}{row}-n3-softmax-d8"
    examples, head, start = calls[name]
    source = models.load_model(member_folder(workdir, "seed0-base-softmax-d8"))
    for ours, theirs in zip(
        jax.tree.leaves((start.params, start.state, start.pixels)),
        jax.tree.leaves((source.params, source.state, source.pixels)),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    base = 0 if prefix else 12
    assert head.num_classes == base + 4 == len(examples.class_names)
    np.testing.assert_array_equal(head.weight[:base], source.head.weight[:base])
    assert head.scale == source.head.scale
    images, own, _, _, order = _data(0)
    if row == "rand_ft":
        key = jax.random.fold_in(key_of(name), HEAD)
        expected = cosine_head(key, 8, base + 4).weight[base:]
        np.testing.assert_array_equal(head.weight[base:], expected)
    else:
        at = _few(own, order, 0, 3)
        z = _unit(_linear(source, _prepared(source, images[at.ravel()])))
        expected = _unit(z.reshape(4, 3, 8).mean(axis=1))
        np.testing.assert_allclose(head.weight[base:], expected, atol=1e-5)
    trained = models.load_model(member_folder(workdir, name))
    assert not np.array_equal(trained.head.weight, head.weight)


def test_base_and_joint_networks_start_afresh(finished):
    *_, calls = finished
    for name, (_, _, start) in calls.items():
        assert (start is None) == ("_ft-" not in name), name


def test_the_last_epoch_is_reported_and_not_the_best(finished):
    # Peers choose the epoch on the test images.
    _, workdir, _ = finished
    for name, count in (
        ("seed0-imprinting_ft-n3-softmax-d8", 2),
        ("seed1-joint-n3-linear-d8", 5),
        ("seed0-transfer_rand_ft-n3-softmax-d8", 10),
    ):
        record = _record(workdir, name)
        (scores,) = record["rows"].values()
        epochs = record["epochs"]
        every = 2 if "transfer" in name else 180 // 24
        assert [line["step"] for line in epochs] == [
            every * (i + 1) for i in range(count)
        ]
        assert scores == {k: epochs[-1][k] for k in scores}
    assert _record(workdir, "seed0-base-softmax-d8")["epochs"] == []


@pytest.mark.parametrize(
    "name",
    [
        "seed0-base-softmax-d8",
        "seed0-base-proxy_nca-d8",
        "seed1-joint-n3-linear-d8",
        "seed1-joint_cosine-n3-softmax-d8",
    ],
)
def test_every_loss_of_a_head_trains(finished, name):
    _, workdir, _ = finished
    lines = read_metrics(member_folder(workdir, name))
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]
    head = models.load_model(member_folder(workdir, name)).head
    assert head.unit == ("linear" not in name)


@pytest.mark.parametrize(
    ("name", "loss"), [("nca", nca_loss), ("lifted", lifted_structured_loss)]
)
def test_losses_between_examples_train_without_a_head(finished, name, loss):
    _, workdir, calls = finished
    member = f"seed0-base-{name}-d8"
    examples, head, _ = calls[member]
    trained = models.load_model(member_folder(workdir, member))
    assert head is trained.head is None
    params, state = trained.net.init(
        jax.random.fold_in(key_of(member), INIT), (14, 14, 1)
    )
    fresh = dataclasses.replace(trained, params=params, state=state)
    images = _data(0)[0][examples.rows]
    values = []
    for model in (fresh, trained):
        z = normalize(
            jnp.asarray(_linear(model, _prepared(model, images)), jnp.float32)
        )
        values.append(
            float(loss(squared_euclidean(z, z), jnp.asarray(examples.labels)))
        )
    assert values[1] < values[0]


def test_one_compiled_program_serves_every_n_and_every_start(finished):
    result, workdir, _ = finished
    tuned = {
        f"seed0-{row}_ft-n{n}-softmax-d8"
        for row in ("rand", "imprinting")
        for n in (1, 3)
    }
    alone = {f"seed0-transfer_{row}_ft-n3-softmax-d8" for row in ("rand", "imprinting")}
    base = {f"seed{seed}-base-softmax-d8" for seed in (0, 1)}
    for group in (tuned, alone, base):
        assert sum(_record(workdir, name)["compilations"] for name in group) == 1
    # Three more losses, one more dimension, and three joint networks.
    assert result["compilations"] == 3 + 3 + 1 + 3


def test_moments_are_those_of_base_classes(finished):
    _, workdir, _ = finished
    images, own, _, _, order = _data(0)
    model = models.load_model(member_folder(workdir, "seed0-base-softmax-d8"))
    known = images[np.isin(own, order[:12])].astype(np.float64)
    np.testing.assert_allclose(model.pixels.mean, known.mean(axis=0), rtol=1e-5)
    assert float(model.pixels.std) == pytest.approx(known.std(), rel=1e-4)


def test_names_tell_members_apart_and_sources_come_first():
    queue = networks(TINY)
    names = [network.name for network in queue]
    assert len(set(names)) == len(names) == 6 + 12 + 4 + 2 + 2 + 1
    for i, network in enumerate(queue):
        assert network.source is None or network.source in queue[:i]


def test_tables_keep_classifiers_of_novel_classes_apart(finished):
    result, _, _ = finished
    shown = {
        title: [line.split("|")[1].strip() for line in table.splitlines()[2:]]
        for title, table in report.tables(result).items()
    }
    novel, base, all_, harmonic, alone, dims = shown.values()
    assert [title.split(",")[0] for title in shown] == [
        "Accuracy on images of novel classes",
        "Accuracy on images of base classes",
        "Accuracy on images of all classes",
        "Harmonic mean of the accuracies on base and on novel classes",
        "Accuracy among novel classes alone",
        "Accuracy on novel classes by embedding dimensions",
    ]
    assert all_ == [
        *(*NOT_TRAINED, "Rand + FT", "Imprinting + FT"),
        *("AllClassJoint", "AllClassJoint, cosine head"),
    ]
    assert novel == all_ == harmonic == base[1:]
    assert dims == [f"{row}, 4 dimensions" for row in (*NOT_TRAINED, "AllClassJoint")]
    assert {
        *("softmax, nearest", "lifted, average", "Imprinting + Aug", "Rand + FT")
    } < {*alone}


def test_tables_have_the_means_of_the_metrics(finished):
    result, workdir, _ = finished
    novel = next(iter(report.tables(result).values())).splitlines()
    head = [cell.strip() for cell in novel[0].split("|")]
    (line,) = (line for line in novel if line.startswith("| Imprinting  "))
    cell = line.split("|")[head.index("n = 3")].strip()
    rows = [
        row["value"]
        for row in result["rows"]
        if row["metric"] == "novel"
        and (row["row"], row["n"], row["dim"]) == ("imprinting", 3, TINY.dim)
    ]
    assert cell.split(" ± ")[0] == f"{np.mean(rows):.2f}"
    assert cell in (workdir / "tables.md").read_text()


def test_claims_are_paired_by_seed(finished):
    result, _, _ = finished
    found = result["findings"]
    values = {
        (r["row"], r["seed"]): r["value"]
        for r in result["rows"]
        if (r["n"], r["dim"], r["metric"]) == (3, 8, "novel")
    }
    each = [values["imprinting", s] - values["rand_noft", s] for s in (0, 1)]
    assert found["1/n3"]["difference"]["mean"] == pytest.approx(np.mean(each))
    assert found["1/n3"]["difference"]["n"] == 2
    # Only the seeds that both sides have.
    one = values["imprinting", 0] - values["rand_ft", 0]
    assert found["2/n3"]["difference"]["mean"] == pytest.approx(one)
    assert found["2/n3"]["difference"]["ci95"] is None
    assert found["5/n1"]["expects"] == "below" and found["5/n3"]["expects"] == "above"
    assert {"6/lifted/n3", "7/d4/n3", "3/n1"} < {*found}
    # With one example both are the same; joint networks share no seed with the others.
    assert not {"6/softmax/n1", "8/n3"} & {*found}


def test_every_figure_and_the_gallery_are_made(finished):
    pytest.importorskip("matplotlib")
    _, workdir, _ = finished
    made = {path.name for path in (workdir / "figures").iterdir()}
    names = ("rows", "nearest", "dimensions", "epochs", "transfer_epochs", "gallery")
    assert made == {f"{name}.{ending}" for name in names for ending in ("svg", "png")}
    folder = member_folder(workdir, "seed0-measure-n1-softmax-d8")
    with np.load(folder / "gallery.npz") as file:
        shown = dict(file)
    images, own, tests, labels, order = _data(0)
    exemplars = images[_few(own, order, 0, 1)[shown["classes"], 0]]
    np.testing.assert_array_equal(shown["exemplars"], exemplars)
    # Each image is one of the test images, and right where its class is the true one.
    for image, right, place, label in zip(
        *(shown[name] for name in ("images", "right", "predicted", "labels")),
        strict=True,
    ):
        truth = labels[(tests == image).all(axis=(1, 2, 3))]
        assert 12 + label in truth
        assert (shown["classes"][place] == label) == right


# A part of the study, whose largest n is another.
PART = dataclasses.replace(
    TINY,
    shots=(1,),
    seeds=(0,),
    tuned=Rows((1,), (0,)),
    transfer=Rows((), ()),
    joint=Rows((), ()),
    dims=(),
    losses=(),
    side_shots=(),
    run=Options(save_every=5, log_every=5, progress=False),
    figures=False,
)


@pytest.fixture
def trained(monkeypatch):
    """The names of the members that are trained or measured from here on."""
    names, real = [], Trainer.train

    def spy(self, members, folder):
        names.extend(member.name for member in members)
        return real(self, members, folder)

    monkeypatch.setattr(Trainer, "train", spy)
    return names


def _same(one, other, names):
    for name in names:
        ours, theirs = (_record(folder, name) for folder in (one, other))
        assert ours["rows"] == theirs["rows"], name
        assert ours.get("epochs") == theirs.get("epochs"), name
        if "measure" not in name:
            left, right = (
                models.load_model(member_folder(folder, name))
                for folder in (one, other)
            )
            mine, its = (
                {"params": m.params, "head": m.head and m.head.weight}
                for m in (left, right)
            )
            jax.tree.map(np.testing.assert_array_equal, mine, its)


def test_a_killed_study_resumes_bit_identically_and_grows(
    finished, tmp_path, kill_imprinting, trained, capsys
):
    _, whole, _ = finished
    # The base network takes 21 steps, and fine-tuning 14.
    kill_imprinting(PART, tmp_path, call=13)
    run(PART, tmp_path)
    assert "train: going on from step 10 of 21" in capsys.readouterr().out
    again = tmp_path / "again"
    shutil.copytree(tmp_path, again, ignore=shutil.ignore_patterns("again"))
    for path in ("seed0-rand_ft-n1-softmax-d8", "seed0-imprinting_ft-n1-softmax-d8"):
        shutil.rmtree(member_folder(again, path))
    (again / "result.json").unlink()
    kill_imprinting(PART, again, call=13 + 9)
    run(PART, again)
    assert "train: going on from step 5 of 14" in capsys.readouterr().out
    names = [network.name for network in networks(PART)]
    assert len(names) == 4
    _same(tmp_path, whole, names)
    _same(again, whole, names)

    trained.clear()
    grown = dataclasses.replace(PART, shots=(3,), tuned=Rows((3,), (0,)))
    result = run(grown, tmp_path)
    tuned = [f"seed0-{row}-n3-softmax-d8" for row in ("rand_ft", "imprinting_ft")]
    assert trained == ["seed0-measure-n3-softmax-d8", *tuned]
    assert result["config"]["shots"] == result["config"]["tuned.shots"] == [1, 3]
    _same(tmp_path, whole, [*names, *trained])

    trained.clear()
    result = run(dataclasses.replace(PART, seeds=(0, 1), shots=(1, 3)), tmp_path)
    assert trained == [
        "seed1-base-softmax-d8",
        *(f"seed1-measure-n{n}-softmax-d8" for n in (1, 3)),
    ]
    assert result["metrics"]["12+4/n3/imprinting/novel"]["n"] == 2
    assert result["metrics"]["12+4/n3/imprinting_ft/novel"]["n"] == 1
    _same(tmp_path, whole, [*names, *trained])


def test_a_study_killed_within_a_member_may_grow_by_an_n(
    finished, tmp_path, kill_imprinting, capsys
):
    kill_imprinting(PART, tmp_path, call=21 + 9)
    run(dataclasses.replace(PART, shots=(1, 3)), tmp_path)
    assert "train: going on from step 5 of 14" in capsys.readouterr().out
    _same(tmp_path, finished[1], ["seed0-rand_ft-n1-softmax-d8"])


def test_the_rows_of_heads_may_be_shared_by_devices(finished, tmp_path):
    """In base training and fine-tuning, with the tests of both."""
    _, whole, _ = finished
    run(dataclasses.replace(PART, mesh=Mesh(1, 2), population=1), tmp_path)
    for name in ("seed0-base-softmax-d8", "seed0-rand_ft-n1-softmax-d8"):
        ours, theirs = (_record(folder, name)["rows"] for folder in (tmp_path, whole))
        assert ours.keys() == theirs.keys()
        for row in ours:
            assert ours[row] == pytest.approx(theirs[row], abs=5), (name, row)


def test_a_population_on_two_devices_equals_one_network_at_a_time(
    finished, tmp_path, trained
):
    _, whole, _ = finished
    config = dataclasses.replace(
        PART, seeds=(0, 1), mesh=Mesh(2), population=2, tuned=Rows((1,), (0, 1))
    )
    run(config, tmp_path)
    assert len(trained) == 2 + 2 + 4
    for number, name in enumerate(("seed0-base-softmax-d8", "seed1-base-softmax-d8")):
        record = _record(tmp_path, name)
        # Both share one program, which is counted once.
        assert record["compilations"] == (number == 0)
        assert record["rows"] == _record(whole, name)["rows"]
        ours, theirs = (
            models.load_model(member_folder(folder, name))
            for folder in (tmp_path, whole)
        )
        for one, other in (
            (ours.params, theirs.params),
            (ours.head.weight, theirs.head.weight),
        ):
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
                one,
                other,
            )
    ours, theirs = [
        _record(folder, "seed0-rand_ft-n1-softmax-d8")["epochs"]
        for folder in (tmp_path, whole)
    ]
    assert ours == theirs


def test_members_of_other_data_are_refused(finished, tmp_path):
    _, whole, _ = finished
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "config.json").unlink()
    other = dataclasses.replace(TINY, data=dataclasses.replace(TINY.data, side=7))
    with pytest.raises(ValueError, match=r"seed0-base-softmax-d8 was trained with"):
        run(other, tmp_path / "run")
