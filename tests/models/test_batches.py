"""Training on labelled images: one model or many, resident or streamed, on devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer import (
    Examples,
    Optim,
    Options,
    Pixels,
    Recipe,
    Stage,
    cosine_head,
    embed,
    init_model,
    key_of,
    linear_head,
    predict,
    sharding,
    train_batches,
    train_population,
)
from jaxfer.data import Affine, Crop, Images
from jaxfer.data.sampling import Sampler
from jaxfer.models import batches
from jaxfer.nets import Flatten
from jaxfer.sharding import make_mesh
from jaxfer.stopping import Best
from tests.models.conftest import NET, SHAPE

QUIET = Options(progress=False, tensorboard=False)


def leaves(model):
    return jax.tree.leaves((model.params, model.state, model.head))


def assert_same(one, other):
    for x, y in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def assert_close(one, other, **tolerance):
    for x, y in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), **tolerance)


def train(task, recipe, head, **how):
    how = {"key": jax.random.key(0), "options": QUIET, **how}
    return train_batches(NET, task, recipe, head=head, **how)


@pytest.fixture(scope="module")
def trained(task, recipe, head):
    return train(task, recipe, head)


def test_a_model_learns(task, recipe, head):
    longer = dataclasses.replace(recipe, epochs=25)
    found = predict(train(task, longer, head).model, task)
    assert np.mean(np.array(found.names) == np.array(list("abcd"))[task.labels]) > 0.7
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_model_says_what_it_is(trained, task):
    assert trained.model.class_names == ("a", "b", "c", "d")
    assert trained.steps == 12 and trained.compilations == 1
    assert trained.model.about["data"] == task.fingerprint


def test_first_steps_are_those_of_a_slow_loop(task, head):
    """Two steps of SGD on a linear softmax classifier, against NumPy."""
    from jaxfer.data.sampling import draw_batch
    from jaxfer.keys import ORDER

    rate, key = 0.5, jax.random.key(3)
    head = linear_head(jax.random.key(4), 64, 4)
    recipe = Recipe(Optim("sgd", rate, momentum=0.0), steps=2, batch=10)
    how = {"key": key, "head": head, "options": QUIET}
    model = train_batches(Flatten(), task, recipe, **how).model
    weight, bias = np.asarray(head.weight, np.float64), np.zeros(4)
    for step in range(2):
        places = draw_batch(
            Sampler(), jax.random.fold_in(key, ORDER), step, batch=10, n=40
        ).places
        x = task.images[np.asarray(places)].reshape(10, -1) / 255
        logits = x @ weight.T + bias
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        error = (p - np.eye(4)[task.labels[np.asarray(places)]]) / 10
        weight, bias = weight - rate * error.T @ x, bias - rate * error.sum(0)
    np.testing.assert_allclose(model.head.weight, weight, atol=1e-6)
    np.testing.assert_allclose(model.head.bias, bias, atol=1e-6)


def test_micro_batches_average_to_the_batch(task, head):
    net = Flatten(dim=8)
    recipe = Recipe(Optim("sgd", 0.05), steps=4, batch=20, augment=Crop(1, mirror=True))
    how = {"key": jax.random.key(0), "head": head, "options": QUIET}
    whole = train_batches(net, task, recipe, **how).model
    pieces = dataclasses.replace(recipe, accumulate=4)
    parts = train_batches(net, task, pieces, **how).model
    assert_close(whole, parts, rtol=2e-5, atol=2e-6)


def test_any_optax_transformation_trains(task, recipe, head):
    lion = dataclasses.replace(recipe, optim=optax.lion(1e-3))
    assert train(task, lion, head).steps == 12


def test_streamed_images_give_the_same_bits(task, recipe, head, capsys):
    pytest.importorskip("grain")
    moved = dataclasses.replace(recipe, augment=Crop(1, mirror=True, side=8))
    resident = train(task, moved, head)
    options = dataclasses.replace(QUIET, limit=0.0)
    streamed = train(task, moved, head, options=options)
    assert "task is streamed" in capsys.readouterr().out
    assert_same(resident.model, streamed.model)


def test_a_stopped_training_resumes_to_the_same_bits(tmp_path, task, recipe, head):
    options = dataclasses.replace(QUIET, save_every=5)
    seen = []

    def stop(model):
        seen.append(model.about["steps"])
        if len(seen) == 2:
            raise MemoryError("killed")
        return {"val/loss": 1.0}

    how = {"workdir": tmp_path, "options": options, "eval_every": 4}
    with pytest.raises(MemoryError):
        train(task, recipe, head, evaluate=stop, **how)
    again = train(task, recipe, head, evaluate=lambda m: {"val/loss": 1.0}, **how)
    plain = train(task, recipe, head)
    assert_same(again.model, plain.model)
    assert [line["step"] for line in again.history] == [4, 8, 12]


def test_more_epochs_go_on_from_a_finished_training(tmp_path, task, recipe, head):
    """Bit-identical to a training without the break; a cosine cannot go on."""
    constant = dataclasses.replace(recipe, optim=Optim("sgd", 0.05, momentum=0.9))
    longer = dataclasses.replace(constant, epochs=5)
    plain = train(task, longer, head)
    train(task, constant, head, workdir=tmp_path / "constant")
    again = train(task, longer, head, workdir=tmp_path / "constant")
    assert (again.steps, again.model.about["steps"]) == (20, 20)
    assert_same(again.model, plain.model)
    with pytest.raises(ValueError, match="at least 20 steps, which are done, got 12"):
        train(task, constant, head, workdir=tmp_path / "constant")
    train(task, recipe, head, workdir=tmp_path / "cosine")
    longer = dataclasses.replace(recipe, epochs=5)
    with pytest.raises(ValueError, match="12 steps of train as before.*, got 20"):
        train(task, longer, head, workdir=tmp_path / "cosine")


def test_several_augmentations_are_applied_in_order(task, recipe, head):
    """The last window is the model's, and a change that is off changes no bit."""
    crop = Crop(1, mirror=True, side=8)
    alone, off, both = (
        train(task, dataclasses.replace(recipe, augment=augment), head).model
        for augment in (crop, (Affine(), crop), (Affine(shift=1.0), crop))
    )
    assert_same(alone, off)
    assert alone.pixels.window == both.pixels.window == 8
    assert any(np.any(a != b) for a, b in zip(leaves(alone), leaves(both), strict=True))


def test_the_best_model_is_returned_and_training_stops(task, recipe, head):
    losses = iter([3.0, 1.0, 2.0, 4.0, 5.0, 6.0])
    select = Best(every=2, patience=1)
    found = train(
        task, recipe, head, evaluate=lambda m: {"val/loss": next(losses)}, select=select
    )
    assert found.best_step == 4
    four = train(task, dataclasses.replace(recipe, steps=12), head, stages=[Stage()])
    assert found.model.about["steps"] == 4 < four.steps


@pytest.mark.parametrize("frozen", [("conv1",), ("conv1", "fc2")])
def test_frozen_layers_keep_their_bits(task, recipe, head, frozen):
    start = init_model(NET, SHAPE, key_of("start"))
    wild = dataclasses.replace(
        recipe, optim=Optim("adamw", 0.01, weight_decay=0.1, clip=1.0)
    )
    model = train(task, wild, head, start=start, stages=[Stage(frozen)]).model
    for name in NET.build().layers:
        same = [
            bool((x == y).all())
            for part in ("params", "state")
            for x, y in zip(
                jax.tree.leaves(getattr(start, part)[name]),
                jax.tree.leaves(getattr(model, part)[name]),
                strict=True,
            )
        ]
        assert all(same) if name in frozen else not all(same), name


def test_gradual_unfreezing_carries_the_optimizer_over(task, recipe, head):
    stages = [Stage(("conv1", "fc2"), 4), Stage(("conv1",), 8), Stage((), None)]
    model = train(task, recipe, head, stages=stages).model
    one = train(task, recipe, head, stages=[Stage(("conv1", "fc2"))]).model
    assert not np.array_equal(
        model.params["conv1"]["Conv_0"]["kernel"],
        one.params["conv1"]["Conv_0"]["kernel"],
    )


def members_of(task, names):
    rows = np.arange(40, dtype=np.int32)
    pixels = [Pixels(), Pixels(np.float32(90), np.float32(60))]
    return [
        Examples(rows, task.labels, pixels[i % 2], key_of(name), task.class_names)
        for i, name in enumerate(names)
    ]


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_population_is_its_members_one_by_one(task, recipe, head, devices):
    names = ["one", "two", "three", "four"]
    members = members_of(task, names)
    how = {"options": QUIET, "mesh": make_mesh(devices) if devices > 1 else None}
    together = train_population(NET, task, members, recipe, heads=[head] * 4, **how)
    for member, found in zip(members, together, strict=True):
        (alone,) = train_population(
            NET, task, [member], recipe, heads=[head], options=QUIET
        )
        assert_close(found.model, alone.model, rtol=1e-5, atol=1e-6)


def test_one_model_on_several_devices_is_one_on_one(task, recipe, head):
    # BatchNorm over 8 images amplifies rounding from step to step, so there are few.
    spread = dataclasses.replace(recipe, batch=8, steps=4)
    one = train(task, spread, head).model
    four = train(task, spread, head, mesh=make_mesh(4)).model
    assert_close(one, four, rtol=1e-4, atol=1e-5)
    scores = [predict(model, task).names for model in (one, four)]
    assert scores[0] == scores[1]


def test_the_rows_of_a_head_are_shared_by_devices(task, recipe, monkeypatch):
    """A mesh of 2 x 4 trains as one device does, and each device has a quarter."""
    shards, real = [], batches.first_state

    def spy(*arguments):
        state = real(*arguments)
        rows = [x for x in jax.tree.leaves(state) if x.shape == (1, 40, 8)]
        shards.append([x.addressable_shards[0].data.shape for x in rows])
        return state

    def make():
        return linear_head(jax.random.key(1), 8, 40)

    monkeypatch.setattr(batches, "first_state", spy)
    one, eight = (
        train(task, recipe, sharding.init_rows(make, 40, mesh), mesh=mesh)
        for mesh in (None, make_mesh(2, 4))
    )
    assert_close(one.model, eight.model, rtol=1e-4, atol=1e-5)
    assert eight.compilations == 1
    # The weights, and their momentum.
    assert shards == [[(1, 40, 8)] * 2, [(1, 10, 8)] * 2]


def test_metric_losses_train_without_a_head(task):
    recipe = Recipe(
        Optim("sgd", 0.05), "lifted", Sampler("groups", 5), epochs=2, batch=10
    )
    model = train(task, recipe, None).model
    assert model.head is None and embed(model, task).shape == (40, 8)
    with pytest.raises(ValueError, match="expected a model with a head"):
        predict(model, task)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": None}, "expected a head for the loss 'softmax'"),
        ({"head": "wide"}, "dimension 8, got one for dimension 9"),
        ({"head": "few"}, "expected labels below the 2 classes of the head, got 3"),
        ({"recipe": {"batch": 41}}, "at least one batch of 41 examples, got 40"),
        ({"recipe": {"accumulate": 3}}, "accumulate to divide a batch of 10, got 3"),
        ({"stages": [Stage(("nosuch",))]}, "expected layers among"),
        (
            {"mesh": (3,)},
            "batch size that is a multiple of the 3 devices, got 10",
        ),
        ({"mesh": (1, 3)}, "classes .* multiple of the 3 devices of 'model', got 4"),
    ],
)
def test_what_does_not_fit_is_refused(task, recipe, head, change, message):
    other = {"wide": linear_head(jax.random.key(0), 9, 4)}
    other["few"] = linear_head(jax.random.key(0), 8, 2)
    chosen = change.get("head", head)
    chosen = other[chosen] if isinstance(chosen, str) else chosen
    recipe = dataclasses.replace(recipe, **change.get("recipe", {}))
    how = {k: v for k, v in change.items() if k == "stages"}
    if "mesh" in change:
        how["mesh"] = make_mesh(*change["mesh"])
    with pytest.raises(ValueError, match=message):
        train(task, recipe, chosen, **how)


def test_float_features_train_a_probe(rng):
    labels = np.arange(30, dtype=np.int32) % 3
    features = rng.normal(size=(30, 5)).astype(np.float32) + 3 * np.eye(3, 5)[labels]

    members = [
        Examples(
            np.arange(30, dtype=np.int32),
            labels,
            Pixels(np.float32(0), np.float32(1)),
            key_of("probe"),
            ("x", "y", "z"),
        )
    ]
    (found,) = train_population(
        Flatten(),
        jnp.asarray(features),
        members,
        Recipe(Optim("sgd", 0.5), epochs=20, batch=10),
        heads=[cosine_head(jax.random.key(0), 5, 3)],
        options=QUIET,
    )
    names = np.array(predict(found.model, features).names)
    assert np.mean(names == np.array(["x", "y", "z"])[labels]) > 0.9


def test_a_loss_that_is_not_finite_names_the_step(task, recipe, head):
    wild = dataclasses.replace(recipe, optim=Optim("sgd", 1e30, momentum=0.0))
    with pytest.raises(ValueError, match="of step"):
        train(task, wild, head)


def test_images_that_do_not_fit_a_model_are_refused_with_a_hint(trained):
    model = trained.model
    assert model.about["image_shape"] == [*SHAPE]
    colour = np.zeros((2, *SHAPE[:2], 3), np.uint8)
    hint = "1 channels .* convert them with `jaxfer.data.greyscale`"
    with pytest.raises(ValueError, match=hint):
        predict(model, colour)
    bare = dataclasses.replace(model, head=None)
    with pytest.raises(ValueError, match="add a head with `with_prototypes"):
        predict(bare, colour[..., :1])


def test_images_of_another_size_are_refused(trained):
    small = Images("s", np.zeros((1, 9, 9, 1), np.uint8), np.zeros(1, np.int32), ("a",))
    model = dataclasses.replace(
        trained.model, pixels=Pixels(size=(8, 8), mean=np.zeros((8, 8, 1), np.float32))
    )
    with pytest.raises(ValueError, match="expected images of 8x8 pixels"):
        embed(model, small)


def log(step, metrics):
    """A logger that a test names by its import path."""
    SEEN.append((step, metrics))


SEEN: list = []


def test_loggers_get_the_learning_rate_of_the_schedule(task, recipe, head):

    recipe = dataclasses.replace(recipe, optim=Optim("sgd", 0.2, "cosine"))
    seen: dict = {}
    options = Options(progress=False, log_every=1)
    trained = train(task, recipe, head, options=options, logger=seen.__setitem__)
    rates = [metrics["train/learning_rate"] for metrics in seen.values()]
    steps = np.arange(1, trained.steps + 1)
    expected = 0.1 * (1 + np.cos(np.pi * steps / trained.steps))
    assert [*seen] == steps.tolist()
    np.testing.assert_allclose(rates, expected, atol=1e-6)
    # A transformation of optax does not tell its rate.
    seen.clear()
    recipe = dataclasses.replace(recipe, optim=optax.sgd(0.1))
    train(task, recipe, head, options=options, logger=seen.__setitem__)
    assert seen and all("train/learning_rate" not in found for found in seen.values())


def test_a_logger_may_be_an_import_path(task, recipe, head):
    SEEN.clear()
    options = Options(progress=False, logger=f"{__name__}:log")
    trained = train(task, recipe, head, options=options)
    assert SEEN[-1][0] == trained.steps and "train/loss" in SEEN[-1][1]
    for path in ("nosuch_module:log", f"{__name__}:nosuch", "nocolon"):
        with pytest.raises(ValueError, match=f"expected run.logger .* got '{path}'"):
            train(task, recipe, head, options=Options(logger=path))
