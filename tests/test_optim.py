"""Optimizers and schedules against slow NumPy, and who is decayed and scaled."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer.optim import (
    Optim,
    check_optim,
    make_optimizer,
    make_schedule,
    scale_by_rules,
)

STEPS = 6


def _rates(optim, num_steps, units=(1, 1)):
    schedule = jax.jit(make_schedule(optim, num_steps=num_steps, units=units))
    return np.asarray(schedule(jnp.arange(num_steps, dtype=jnp.int32)))


def _by_numpy(optim, p, grads):
    """The parameters after each gradient, by the definitions, in float64."""
    rates = _rates(optim, STEPS).astype(np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p) + (optim.name == "rmsprop")
    found = []
    for t, g in enumerate(grads, 1):
        norm = math.sqrt((g * g).sum())
        if optim.clip and norm > optim.clip:
            g = g * optim.clip / norm
        if optim.name != "adamw":
            g = g + optim.weight_decay * p
        rate = rates[t - 1]
        if optim.name == "sgd":
            m = optim.momentum * m + g
            p = p - rate * m
        elif optim.name == "rmsprop":
            v = optim.rms_decay * v + (1 - optim.rms_decay) * g * g
            m = optim.momentum * m + rate * g / np.sqrt(v + optim.rms_eps)
            p = p - m
        else:
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            if optim.name == "adamw":
                update = update + optim.weight_decay * p
            p = p - rate * update
        found.append(p)
    return np.stack(found)


@pytest.mark.parametrize(
    "optim",
    [
        Optim("sgd", 0.1, "cosine", 0.34, weight_decay=0.1, clip=1.5),
        Optim("sgd", 0.1, momentum=0.0),
        Optim("adam", 0.01, "staircase", decay_every=2, weight_decay=0.1),
        Optim("adamw", 0.01, "cosine", weight_decay=0.1, clip=1.5),
        Optim("rmsprop", 0.1, "staircase", decay=0.94, decay_every=4),
        Optim("rmsprop", 0.1, weight_decay=0.1, momentum=0.0),
    ],
    ids=lambda o: f"{o.name}-{o.schedule}",
)
def test_optimizers_are_their_definitions(rng, optim):
    p, grads = rng.normal(size=(3, 2)), rng.normal(size=(STEPS, 3, 2))
    expected = _by_numpy(optim, p, grads)
    optimizer = make_optimizer(optim, num_steps=STEPS)
    params = {"kernel": jnp.asarray(p, jnp.float32)}
    state, found = optimizer.init(params), []
    update = jax.jit(optimizer.update)
    for g in grads:
        updates, state = update({"kernel": jnp.asarray(g, jnp.float32)}, state, params)
        params = optax.apply_updates(params, updates)
        found.append(params["kernel"])
    np.testing.assert_allclose(np.stack(found), expected, rtol=2e-4, atol=1e-6)


def test_rmsprop_has_the_customary_values_of_slim():
    """v = .9 * 1 + .1 g^2 at first, and 1 is added to it inside the root."""
    optimizer = make_optimizer(Optim("rmsprop", 0.1), num_steps=9)
    params = {"w": jnp.full((1, 1), 2.0)}
    state = optimizer.init(params)
    v, m = 1.0, 0.0
    for _ in range(3):
        updates, state = optimizer.update(params, state, params)
        v, g = 0.9 * v + 0.1 * 4, 2.0
        m = 0.9 * m + 0.1 * g / (v + 1) ** 0.5
        assert updates["w"].item() == pytest.approx(-m, rel=1e-5)


@pytest.mark.parametrize("every", [8, 500, 2000])
@pytest.mark.parametrize("per_step", [1, 2, 6, 7, 12])
def test_the_rate_halves_once_so_many_episodes_are_done(every, per_step):
    optim = Optim("adam", 1e-3, "staircase", decay=0.5, decay_every=every)
    rates = _rates(optim, 12 * every // per_step + 2, (per_step, 1))
    done = np.arange(len(rates)) * per_step
    np.testing.assert_allclose(rates, 1e-3 * 0.5 ** (done // every), rtol=1e-6)
    if per_step == 1:
        assert rates[every - 1] == np.float32(1e-3)
        assert rates[every] == np.float32(5e-4)


def test_the_rate_falls_to_94_percent_every_four_epochs():
    optim = Optim("rmsprop", 1.0, "staircase", decay=0.94, decay_every=4)
    rates = _rates(optim, 45, (1, 5))
    np.testing.assert_allclose(rates, 0.94 ** (np.arange(45) // 20), rtol=1e-5)


def test_units_are_counted_in_whole_numbers_past_32_bits():
    optim = Optim("sgd", 1.0, "staircase", decay=0.5, decay_every=1_000_000_000)
    schedule = make_schedule(optim, num_steps=10**9, units=(1000, 999))
    for step in (998_999_999, 999_000_000):
        assert schedule(step).item() == 0.5 ** (step * 1000 // 999 // 10**9)


def test_a_cosine_rises_from_the_first_step_and_ends_at_zero():
    rates = _rates(Optim("adam", 2e-3, "cosine", warmup=4 / 24), 24)
    np.testing.assert_allclose(rates[:4], 2e-3 * np.arange(1, 5) / 4, rtol=1e-6)
    expected = 1e-3 * (1 + np.cos(np.pi * np.arange(1, 21) / 20))
    np.testing.assert_allclose(rates[4:], expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "staircase"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1 / 12, 0.5, 0.99])
@pytest.mark.parametrize("num_steps", [1, 2, 12, 120])
def test_no_schedule_wastes_its_first_step(schedule, warmup, num_steps):
    optim = Optim("sgd", 0.1, schedule, warmup)
    rates = _rates(optim, num_steps)
    assert np.isfinite(rates).all() and 0 < rates[0] and rates.max() <= np.float32(0.1)
    warm = min(round(warmup * num_steps), num_steps - 1)
    if warm:
        rise = 0.1 * np.arange(1, warm + 1) / warm
        np.testing.assert_allclose(rates[:warm], rise, rtol=1e-5)
    if warm == 0 and schedule != "cosine":
        assert rates[0] == np.float32(0.1)


def test_warmup_is_a_share_of_the_training():
    """A twelfth of 12 epochs of k steps is k steps, whatever 1 / 12 rounds to."""
    for per_epoch in (1, 2, 7, 15, 49, 98, 199):
        rates = _rates(Optim("sgd", 1.0, warmup=1 / 12), 12 * per_epoch)
        assert (rates < 1 - 1e-6).sum() == per_epoch - 1


PARAMS = {
    "head": {"weight": jnp.ones((2, 2)), "scale": jnp.ones(2), "bias": jnp.ones(2)},
    "net": {
        "fc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
    },
}


def _moved(optimizer, params=PARAMS, gradient=0.0):
    """By how much each parameter moves, of which all elements move alike."""
    grads = jax.tree.map(lambda p: jnp.full_like(p, gradient), params)
    updates, _ = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    moved = jax.tree_util.tree_flatten_with_path(updates)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): float(leaf.mean())
        for path, leaf in moved
    }


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_decay_is_of_kernels_and_rows_unless_rules_say_otherwise(name):
    optim = Optim(name, 0.1, weight_decay=0.5)
    moved = {k for k, v in _moved(make_optimizer(optim, num_steps=5)).items() if v}
    assert moved == {"head/weight", "net/fc/kernel"}
    rules = [("net/**/kernel", True), ("head/bias", True), ("**", False)]
    optimizer = make_optimizer(optim, num_steps=5, decay=rules)
    moved = {k for k, v in _moved(optimizer).items() if v}
    assert moved == {"head/bias", "net/fc/kernel"}


def test_the_head_and_rules_have_rates_of_their_own():
    optim = Optim("sgd", 0.1, head_rate=10.0)
    found = _moved(make_optimizer(optim, num_steps=5), gradient=1.0)
    assert {k: v / 0.1 for k, v in found.items()} == pytest.approx(
        {k: -10.0 if k.startswith("head/") else -1.0 for k in found}
    )
    rates = [("net/fc", 0.5), ("**", 1.0)]
    found = _moved(make_optimizer(optim, num_steps=5, rates=rates), gradient=1.0)
    assert found["net/fc/bias"] == pytest.approx(-0.05)
    assert found["head/weight"] == pytest.approx(-1.0)
    # A network without a head has nothing that is ten times as fast.
    bare = {"net": PARAMS["net"]}
    found = _moved(make_optimizer(optim, num_steps=5), bare, gradient=1.0)
    assert found == pytest.approx(dict.fromkeys(found, -0.1))


def test_rules_are_checked_against_all_parameters_where_these_are_told():
    rates = [("net/fc", 0.5), ("**", 1.0)]
    trained = {"head": PARAMS["head"]}
    optim = Optim("sgd", 0.1)
    # What the optimizer is given may lack frozen parameters that a rule is for.
    optimizer = make_optimizer(optim, num_steps=5, rates=rates)
    found = _moved(optimizer, trained, 1.0)
    assert found == pytest.approx(dict.fromkeys(found, -0.1))
    optimizer = make_optimizer(
        dataclasses.replace(optim, weight_decay=0.5),
        num_steps=5,
        rates=rates,
        decay=[("net/fc/kernel", True), ("**", False)],
        params=PARAMS,
    )
    found = _moved(optimizer, trained, 1.0)
    assert found == pytest.approx(dict.fromkeys(found, -0.1))
    with pytest.raises(ValueError, match=r"net/fb"):
        make_optimizer(
            optim, num_steps=5, rates=[("net/fb", 1.0), ("**", 1.0)], params=PARAMS
        )


def test_any_optax_transformation_is_used_as_it_is():
    theirs = optax.sgd(optax.schedules.linear_schedule(1.0, 0.0, 4), 0.9)
    ours = make_optimizer(theirs, num_steps=99)
    assert ours is theirs
    state, expected = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(3):
        updates, state = ours.update(PARAMS, state, PARAMS)
        same, expected = theirs.update(PARAMS, expected, PARAMS)
        jax.tree.map(np.testing.assert_array_equal, updates, same)
    rates = [("head", 3.0), ("**", 1.0)]
    found = _moved(make_optimizer(theirs, num_steps=99, rates=rates), gradient=1.0)
    assert found["head/weight"] == -3 and found["net/fc/kernel"] == -1
    with pytest.raises(ValueError, match="expected no decay rules with an optax"):
        make_optimizer(theirs, num_steps=9, decay=[("**", True)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"learning_rate": -1.0},
            "expected finetune.learning_rate to be a finite .* got -1",
        ),
        ({"learning_rate": 0.0}, "learning_rate to be a finite number above 0, got 0"),
        ({"learning_rate": math.nan}, "learning_rate .* got nan"),
        ({"warmup": 1.0}, r"warmup in \[0, 1\), got 1.0"),
        ({"warmup": -3.0}, r"warmup in \[0, 1\), got -3"),
        ({"decay": 0.0}, r"decay in \(0, 1\], got 0"),
        ({"decay_every": 0}, "decay_every of at least 1, got 0"),
        ({"momentum": 7.0}, r"momentum in \[0, 1\), got 7"),
        (
            {"weight_decay": -1.0},
            "weight_decay to be a finite number of at least 0, got -1",
        ),
        ({"clip": math.inf}, "clip to be a finite number of at least 0, got inf"),
        ({"head_rate": 0.0}, "head_rate to be a finite number above 0, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    optim = dataclasses.replace(Optim(), **changes)
    with pytest.raises(ValueError, match=message):
        check_optim(optim, "finetune")
    with pytest.raises(ValueError, match=f"expected optim.{[*changes][0]}"):
        make_optimizer(optim, num_steps=3)


@pytest.mark.parametrize("how", [{"num_steps": 0}, {"num_steps": 3, "units": (1, 0)}])
def test_no_steps_and_no_units_are_refused(how):
    with pytest.raises(ValueError, match="expected num_steps and units of at least 1"):
        make_schedule(Optim(), **how)


def test_multipliers_keep_layers_without_parameters():
    updates = {"pool": {}, "fc": {"kernel": jnp.ones(1)}}
    slow = scale_by_rules([("**", 0.5)])
    found, _ = slow.update(updates, slow.init(updates))
    assert found["fc"]["kernel"].item() == 0.5 and found["pool"] == {}
