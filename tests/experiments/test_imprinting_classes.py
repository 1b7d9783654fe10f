"""Classes of unequal size: examples, heads and accuracies by slow definitions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.imprinting.classes import most_shots, split_classes, train_set
from experiments.imprinting.config import Config, Data, Network, Rows
from experiments.imprinting.measure import score
from experiments.imprinting.members import Imprinted as Member
from experiments.imprinting.rows import (
    heads_with_novel,
    imprinted,
    metric_heads,
    with_novel,
)
from experiments.imprinting.run import run
from experiments.imprinting.train import Trainer
from jaxfer import cosine_head, head_logits, models
from jaxfer.data import Crop, Images
from jaxfer.data.sampling import draw_batch
from jaxfer.episodes import class_table
from jaxfer.models import Options
from jaxfer.optim import Optim, make_optimizer
from jaxfer.runlog import read_json
from jaxfer.study import member_folder

# The last three classes are novel, and have 1, 2 and 5 images to train on.
TRAIN, TEST = (9, 4, 7, 1, 2, 5), (13, 8, 22, 65, 59, 94)
CONFIG = Config(
    data=Data("x", base=3, shuffled=False, allow_fewer=True, pixels="range"),
    net=Network("Flatten"),
    augment=Crop(1),
    copies=2,
    dim=4,
    batch=8,
    epochs=2,
    optim=Optim("adam", 0.01),
    finetune=Optim("adam", 0.01),
    finetune_epochs=1,
    scale_per_class=True,
    shots=(1, 3),
    seeds=(0,),
    tuned=Rows((3,), (0,)),
    transfer=Rows((), ()),
    joint=Rows((), ()),
    run=Options(save_every=0, log_every=1, progress=False),
    figures=False,
)


def _unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def _images(counts, seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(6, dtype=np.int32), counts))
    images = rng.integers(0, 255, (len(labels), 4, 4, 1), dtype=np.uint8)
    return Images("x", images, labels, tuple("abcdef"))


@pytest.fixture(scope="module")
def parts():
    return _images(TRAIN, 0), _images(TEST, 1)


@pytest.fixture(scope="module")
def finished(parts, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unequal")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.studies.load_parts", lambda data: parts)
        return run(CONFIG, workdir), workdir


def test_small_classes_use_all_they_have_or_are_refused(parts):
    split = split_classes(CONFIG, *parts, 0)
    assert split.counts.tolist() == [1, 2, 3] and split.few.shape == (3, 3)
    for novel, count in enumerate(split.counts):
        mine = split.few[novel, :count]
        assert len({*mine}) == count and (split.train[mine] == 3 + novel).all()
    assert split.owners(1, 3).tolist() == [[3, -1, -1], [4, -1, -1], [5, -1, -1]]
    assert split.owners(3, 0).tolist() == [[0, -1, -1], [1, 1, -1], [2, 2, 2]]
    strict = dataclasses.replace(
        CONFIG, data=dataclasses.replace(CONFIG.data, allow_fewer=False)
    )
    with pytest.raises(ValueError, match="n = 3 examples of class 'd' of x, got 1"):
        split_classes(strict, *parts, 0)


@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_rows_of_small_classes_are_their_definitions(parts, finished, n):
    train, test = parts
    _, workdir = finished
    model = models.load_model(member_folder(workdir, "seed0-base-softmax-d4"))
    z = _unit(np.asarray(models.embed(model, test.images), np.float64))
    own = np.asarray(models.embed(model, train.images), np.float64)
    split = split_classes(CONFIG, *parts, 0)
    few = [_unit(own[split.few[k, : min(n, c)]]) for k, c in enumerate(split.counts)]
    base = _unit(np.asarray(model.head.weight))
    # Each base class has a scale of its own, and new rows their mean.
    scale = np.append(np.asarray(model.head.scale), [np.mean(model.head.scale)] * 3)
    assert scale.shape == (6,)
    rows = np.concatenate([base, _unit(np.stack([x.mean(axis=0) for x in few]))])
    nearest = np.stack([*(base @ z.T), *((x @ z.T).max(axis=0) for x in few)])
    path = member_folder(workdir, f"seed0-measure-n{n}-softmax-d4") / "record.json"
    found = read_json(path)["record"]["rows"]
    novel = test.labels >= 3
    for row, logits, first, chosen in (
        ("imprinting", scale * (z @ rows.T), 0, novel | True),
        ("nearest", (scale[:, None] * nearest).T, 0, novel | True),
        ("transfer_imprinting", z @ rows[3:].T, 3, novel),
        ("softmax_average", z @ rows[3:].T, 3, novel),
        ("softmax_nearest", nearest[3:].T, 3, novel),
    ):
        predicted = first + logits.argmax(axis=1)
        hits = (predicted == test.labels)[chosen & novel]
        assert found[row]["novel"] == pytest.approx(100 * hits.mean()), row


def test_fine_tuning_trains_on_real_novel_examples_alone(parts, finished, tmp_path):
    split = split_classes(CONFIG, *parts, 0)
    trainer = Trainer(CONFIG, tmp_path, *parts)
    known = {*np.flatnonzero(split.train < 3)}
    for row, n, first in (
        ("rand_ft", 2, 3),
        ("joint", 3, 3),
        ("transfer_rand_ft", 1, 0),
    ):
        member = Member(0, row, n, 4, "softmax")
        rows, labels, names, counts = train_set(split, member)
        assert names == tuple("abcdef")[3 - first :]
        table = class_table(labels, num_classes=len(names))._replace(counts=counts)
        sampler = trainer.recipe(member).sampler
        assert sampler.kind == "class"
        places_of = partial(
            draw_batch, sampler, jax.random.key(3), batch=8, n=len(rows), table=table
        )
        draw = jax.vmap(lambda step, of=places_of: of(step).places)
        places = np.asarray(draw(jnp.arange(200, dtype=jnp.int32)))
        real = {
            int(x)
            for k, count in enumerate(split.counts)
            for x in split.few[k, : min(n, count)]
        }
        assert {*rows[np.unique(places)]} == real | (known if first else set())
        np.testing.assert_array_equal(labels, split.train[rows] - (3 - first))
        # Every class as often; 5 degrees of freedom exceed 20.5 once in a thousand.
        times = np.bincount(labels[places].ravel(), minlength=len(names))
        expected = 1600 / len(names)
        assert ((times - expected) ** 2 / expected).sum() < 20.5
        # The examples of a small class as often, too: 1 degree of freedom.
        own = rows[places][labels[places] == first + 1]
        times = np.unique(own, return_counts=True)[1]
        assert len(times) == min(n, 2) and ((times - times.mean()) ** 2).sum() < (
            10.8 * times.mean()
        )
    # A base network takes every example of base classes, as they are.
    member = Member(0, "base", 0, 4, "softmax")
    rows, labels, names, counts = train_set(split, member)
    assert {*rows} == known and counts.tolist() == [9, 4, 7]
    assert trainer.recipe(member).sampler.kind == "epoch"
    np.testing.assert_array_equal(labels, split.train[rows])
    assert most_shots(CONFIG) == 3


def test_scales_per_class_are_trained(finished):
    _, workdir = finished
    base, tuned = (
        models.load_model(member_folder(workdir, f"seed0-{name}-softmax-d4"))
        for name in ("base", "imprinting_ft-n3")
    )
    assert base.head.scale.shape == (3,) and tuned.head.scale.shape == (6,)
    assert len({*np.asarray(tuned.head.scale).tolist()}) == 6


def test_accuracies_of_images_and_of_classes_by_a_loop(finished):
    result, _ = finished
    # The number of test images differs by class, and so do the two accuracies.
    rows = {(r["row"], r["n"], r["metric"]): r["value"] for r in result["rows"]}
    assert rows["imprinting", 1, "all"] != rows["imprinting", 1, "all_balanced"]
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(5), [30, 2, 9, 1, 18]))
    predicted = np.where(rng.random(60) < 0.5, labels, rng.integers(-1, 5, 60))
    scores, recall = score(predicted, labels, 3, 6)
    pairs = [*zip(predicted, labels, strict=True)]
    expected = {}
    for name, classes in (("base", (0, 1, 2)), ("novel", (3, 4)), ("all", range(5))):
        hits = [[p == c for p, t in pairs if t == c] for c in classes]
        flat = [hit for own in hits for hit in own]
        expected[name] = 100 * sum(flat) / len(flat)
        each = [100 * sum(own) / len(own) for own in hits]
        expected[f"{name}_balanced"] = sum(each) / len(each)
        for c, value in zip(classes, each, strict=True):
            assert recall[c] == pytest.approx(value)
    b, n = expected["base"], expected["novel"]
    assert scores == pytest.approx({**expected, "harmonic": 2 * b * n / (b + n)})
    assert recall[5] == 0
    only, _ = score(labels[labels < 3], labels[labels < 3], 3, 5)
    assert only == {"base": 100.0, "base_balanced": 100.0}
    none, _ = score(np.full(60, -1), labels, 3, 5)
    assert none["harmonic"] == none["all"] == 0


@pytest.mark.parametrize("per_class", [False, True])
def test_a_trained_head_gets_rows_and_keeps_its_own(rng, per_class):
    known = cosine_head(jax.random.key(0), 4, 3)
    if per_class:
        known = dataclasses.replace(known, scale=jnp.array([6.0, 9.0, 12.0]))
    drawn = cosine_head(jax.random.key(1), 4, 2).weight
    z = jnp.asarray(rng.normal(size=(2, 3, 4)), jnp.float32)
    owners = np.array([[3, 3, -1], [4, 4, 4]], np.int32)
    both, alone = (with_novel(known, drawn, alone=alone) for alone in (False, True))
    assert alone.num_classes == 2 and both.num_classes == 5
    np.testing.assert_array_equal(both.weight[:3], known.weight)
    np.testing.assert_array_equal(both.weight[3:], drawn)
    np.testing.assert_array_equal(alone.weight, drawn)
    new = 9 if per_class else 10
    assert np.ravel(both.scale)[-1] == np.ravel(alone.scale)[-1] == new
    made = imprinted(both, z, owners)
    np.testing.assert_array_equal(made.weight[:3], known.weight)
    unit = _unit(np.asarray(z))
    expected = _unit(np.stack([unit[0, :2].mean(axis=0), unit[1].mean(axis=0)]))
    np.testing.assert_allclose(made.weight[3:], expected, atol=1e-6)
    logits = np.asarray(head_logits(known, z[0]))
    moved = jnp.stack([z, z], axis=2)
    found = dict(heads_with_novel(known, drawn, z, moved, owners, alone=False))
    assert [*found] == ["rand_noft", "imprinting", "imprinting_aug", "nearest"]
    for name, head in found.items():
        at = np.asarray(head_logits(head, z[0]))
        assert at.shape == (3, 5), name
        np.testing.assert_allclose(at[:, :3], logits, rtol=1e-6, atol=1e-6)
    # An example is its own nearest neighbour, and one without an owner is nobody's.
    np.testing.assert_allclose(
        head_logits(found["nearest"], z[1])[:, 4], new, rtol=1e-5
    )
    assert head_logits(found["nearest"], z[0])[2, 3] < new - 1e-3
    names = ["rand_noft", "imprinting", "imprinting_aug"]
    assert [
        *dict(heads_with_novel(known, drawn, z, moved, owners, alone=True))
    ] == names
    rows = dict(metric_heads(z, np.where(owners < 0, -1, owners - 3)))
    np.testing.assert_allclose(rows["average"].weight, expected, atol=1e-6)
    nearest = np.asarray(head_logits(rows["nearest"], z[0])).argmax(axis=1)
    assert nearest[:2].tolist() == [0, 0]


def test_only_kernels_of_the_network_decay(parts, tmp_path):
    config = dataclasses.replace(CONFIG, optim=Optim("sgd", 1.0, weight_decay=0.5))
    recipe = Trainer(config, tmp_path, *parts).recipe(
        Member(0, "base", 0, 4, "softmax")
    )
    optimizer = make_optimizer(recipe.optim, num_steps=5, decay=recipe.decay)
    params = {
        "head": {"weight": jnp.ones((2, 2)), "scale": jnp.ones(())},
        "net": {"fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}},
    }
    none = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(none, optimizer.init(params), params)
    moved = jax.tree.map(lambda u: bool(jnp.any(u != 0)), updates)
    assert moved["net"]["fc"] == {"kernel": True, "bias": False}
    assert moved["head"] == {"weight": False, "scale": False}


def test_fine_tuning_has_its_own_optimizer_and_joint_networks_both_epochs(
    parts, tmp_path
):
    trainer = Trainer(CONFIG, tmp_path, *parts)
    steps = {}
    for row in ("base", "rand_ft", "joint", "transfer_rand_ft"):
        member = Member(0, row, 3 * (row != "base"), 4, "softmax")
        recipe = trainer.recipe(member)
        steps[row], _ = models.steps_of(recipe, 26)
        assert (recipe.optim is CONFIG.finetune) == row.endswith("_ft")
    # An epoch is two batches of 8 of the 20 images of base classes, for all of them.
    assert steps == {"base": 4, "rand_ft": 2, "joint": 6, "transfer_rand_ft": 300}
