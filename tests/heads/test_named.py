"""Heads with class names: classes are added, extended, removed and predicted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import (
    add_classes,
    append_rows,
    as_linear,
    class_logits,
    class_sums,
    cosine_head,
    extend_classes,
    head_logits,
    imprint_head,
    linear_head,
    name_classes,
    new_named_head,
    normalize,
    predict_classes,
    prototype_head,
    proxy_head,
    remove_classes,
    with_trained_head,
)

DIM = 4
KINDS = ["prototype", "cosine", "linear"]


def _examples(rng, *names, n=3):
    return {name: rng.normal(size=(n, DIM)).astype(np.float32) for name in names}


def _row(z):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    mean = unit.mean(axis=0)
    return mean / np.linalg.norm(mean)


def _softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture
def birds(rng):
    return add_classes(new_named_head(DIM, capacity=4), _examples(rng, "wren", "robin"))


@pytest.fixture
def empty(key):
    """An empty head of a kind; a linear one has two trained classes."""

    def make(kind, capacity=8):
        if kind != "linear":
            return new_named_head(DIM, kind=kind, capacity=capacity)
        return name_classes(linear_head(key, DIM, 2), ["a", "b"], capacity=capacity)

    return make


def test_added_classes_are_known_at_once(rng):
    examples = _examples(rng, "wren", "robin", "kite")
    birds = add_classes(new_named_head(DIM, capacity=4), examples)
    assert birds.names == ("wren", "robin", "kite", None)
    assert birds.classes == ("wren", "robin", "kite")
    for row, z in zip(birds.head.weight, examples.values(), strict=False):
        np.testing.assert_allclose(row, _row(z), rtol=1e-5)
    z = np.stack([_row(examples[name]) for name in ("kite", "wren", "robin")])
    assert predict_classes(birds, 7 * z).names == ["kite", "wren", "robin"]


@pytest.mark.parametrize("offset", [0, 300, 3000])
def test_prototypes_are_raw_means_and_predict_by_squared_distance(rng, offset):
    examples = {c: z + offset for c, z in _examples(rng, *"abc", n=5).items()}
    named = add_classes(new_named_head(DIM, kind="prototype"), examples)
    means = np.stack([z.astype(np.float64).mean(axis=0) for z in examples.values()])
    np.testing.assert_allclose(named.head.weight[:3], means, rtol=1e-6, atol=1e-6)
    z = (rng.normal(size=(6, DIM)) + offset).astype(np.float32)
    d = ((z[:, None].astype(np.float64) - means) ** 2).sum(-1)
    found = predict_classes(named, z)
    tolerance = 1e-5 + offset * 2e-6
    np.testing.assert_allclose(found.probabilities, _softmax(-d), atol=tolerance)
    assert found.names == ["abc"[i] for i in d.argmin(axis=1)]


def test_a_linear_head_gets_rows_of_its_mean_length(key, rng):
    base = linear_head(key, DIM, 3)
    examples = _examples(rng, "gull")
    grown = add_classes(name_classes(base, ["a", "b", "c"]), examples)
    length = np.linalg.norm(base.weight, axis=1).mean()
    np.testing.assert_allclose(
        grown.head.weight[3], length * _row(examples["gull"]), rtol=1e-5
    )
    assert grown.head.bias[3] == 0
    np.testing.assert_array_equal(grown.head.weight[:3], base.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_more_examples_later_are_as_good_as_at_first(empty, rng, kind):
    examples = _examples(rng, "wren", "robin", n=5)
    some = {name: z[:2] for name, z in examples.items()}
    rest = {name: z[2:] for name, z in examples.items()}
    whole = add_classes(empty(kind), examples)
    parts = extend_classes(add_classes(empty(kind), some), rest)
    for ours, theirs in zip(
        jax.tree.leaves((parts.head, parts.sums)),
        jax.tree.leaves((whole.head, whole.sums)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    z = rng.normal(size=(9, DIM)).astype(np.float32)
    one, other = predict_classes(parts, z), predict_classes(whole, z)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_have_one_column_per_class(empty, rng, kind):
    named = add_classes(empty(kind), _examples(rng, "wren", "robin", "kite"))
    named = remove_classes(named, ["robin"])
    z = rng.normal(size=(5, DIM)).astype(np.float32)
    names, shares, classes = predict_classes(named, z)
    assert classes == named.classes and "robin" not in classes
    assert shares.shape == class_logits(named, z).shape == (5, len(classes))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert names == [classes[i] for i in shares.argmax(axis=1)]
    slots = [i for i, name in enumerate(named.names) if name is not None]
    logits = np.asarray(head_logits(named.head, jnp.asarray(z)))
    np.testing.assert_allclose(shares, _softmax(logits[:, slots]), atol=1e-6)
    none = predict_classes(named, z[:0])
    assert none.names == [] and none.probabilities.shape == (0, len(classes))


def test_a_removed_class_leaves_its_slot_and_the_others_bits(birds, rng):
    left = remove_classes(birds, ["wren"])
    assert left.names == (None, "robin", None, None)
    np.testing.assert_array_equal(left.head.weight[1], birds.head.weight[1])
    found = predict_classes(left, np.asarray(birds.head.weight[:2]))
    assert found.names == ["robin"] * 2 and (found.probabilities == 1).all()
    examples = _examples(rng, "kite")
    again = add_classes(left, examples)
    assert again.names == ("kite", "robin", None, None)
    # Nothing of the class before it is left in the slot.
    np.testing.assert_allclose(again.head.weight[0], _row(examples["kite"]), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_compiled_classifier_accepts_new_classes(empty, rng, kind):
    traces = []

    @jax.jit
    def logits(head, z):
        traces.append(1)
        return head_logits(head, z)

    named = add_classes(empty(kind), _examples(rng, "wren", "robin"))
    z = jnp.ones((2, DIM))
    before = logits(named.head, z)
    more = add_classes(named, _examples(rng, "kite"))
    more = remove_classes(extend_classes(more, _examples(rng, "kite")), ["wren"])
    after = logits(more.head, z)
    assert len(traces) == 1
    for head, scores in ((named, before), (more, after)):
        there = [name is not None for name in head.names]
        np.testing.assert_array_equal(np.isfinite(scores[0]), there)
    robin = named.names.index("robin")
    np.testing.assert_array_equal(more.head.weight[robin], named.head.weight[robin])
    if kind != "prototype":
        np.testing.assert_array_equal(after[:, robin], before[:, robin])


@pytest.mark.parametrize("kind", ["prototype", "cosine"])
@pytest.mark.parametrize("per_class", [False, True])
def test_slots_double_when_they_are_full(rng, per_class, kind):
    birds = new_named_head(
        DIM, kind=kind, capacity=2, scale=3.0, scale_per_class=per_class
    )
    names = [f"bird{i}" for i in range(5)]
    examples = _examples(rng, *names)
    birds = add_classes(birds, examples)
    assert len(birds.names) == 8 and birds.head.num_classes == 8
    assert birds.head.scale.shape == ((8,) if per_class else ())
    np.testing.assert_array_equal(birds.head.scale, 3)
    z = np.asarray(birds.head.weight[:5])
    assert predict_classes(birds, z).names == names


def test_a_new_class_gets_the_mean_of_the_scales_of_the_others(key, rng):
    scales = jnp.array([2.0, 4.0, 9.0])
    base = dataclasses.replace(cosine_head(key, DIM, 3), scale=scales)
    grown = add_classes(name_classes(base, "abc", capacity=5), _examples(rng, "d"))
    np.testing.assert_array_equal(grown.head.scale[:4], [2, 4, 9, 5])


def test_a_trained_base_keeps_its_bits_and_its_logits(key, rng):
    base = cosine_head(key, DIM, 3)
    names = ["wren", "robin", "kite"]
    grown = add_classes(name_classes(base, names, capacity=5), _examples(rng, "gull"))
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    np.testing.assert_array_equal(grown.head.weight[:3], base.weight)
    np.testing.assert_allclose(
        head_logits(grown.head, z)[:, :3], head_logits(base, z), rtol=1e-6
    )
    assert grown.trained == set(names)


@pytest.mark.parametrize("kind", ["prototype", "cosine"])
def test_a_head_with_its_sums_goes_on_where_it_was(rng, kind):
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    labels = jnp.array([0, 0, 0, 1, 1, 1])
    z = z if kind == "prototype" else normalize(z)
    sums = class_sums(z, labels, num_classes=2)
    head = (prototype_head if kind == "prototype" else imprint_head)(sums)
    named = name_classes(head, ["a", "b"], sums=sums)
    assert not named.trained
    more = extend_classes(named, {"a": np.asarray(z[3:])})
    whole = add_classes(new_named_head(DIM, kind=kind), {"a": np.asarray(z)})
    np.testing.assert_allclose(
        more.head.weight[0], whole.head.weight[0], rtol=1e-5, atol=1e-6
    )
    moved = dataclasses.replace(head, weight=head.weight.at[1].add(0.1))
    assert name_classes(moved, ["a", "b"], sums=sums).trained == {"b"}


def test_a_trained_class_is_extended_only_when_asked(birds, rng):
    moved = np.array(birds.head.weight)
    moved[1] += 0.1
    tuned = with_trained_head(
        birds, dataclasses.replace(birds.head, weight=jnp.asarray(moved))
    )
    assert tuned.trained == {"robin"}
    more = _examples(rng, "robin")
    with pytest.raises(ValueError, match=r"got \['robin'\].*forget_training=True"):
        extend_classes(tuned, more)
    again = extend_classes(tuned, more, forget_training=True)
    np.testing.assert_array_equal(
        again.head.weight, extend_classes(birds, more).head.weight
    )
    assert not again.trained
    # The other one was not trained.
    assert extend_classes(tuned, _examples(rng, "wren")).sums.count[0] == 6


def test_no_examples_change_nothing(birds):
    assert add_classes(birds, {}) is birds
    assert extend_classes(birds, {}) is birds
    assert remove_classes(birds, []).classes == birds.classes


def _bad(z, row, value):
    z = np.array(z)
    z[row] = value
    return z


def test_bad_examples_are_refused_by_name(birds, rng, unchecked):
    good = rng.normal(size=(3, DIM)).astype(np.float32)
    for examples, message in [
        ({"wren": good}, r"got \['wren'\], which are classes already"),
        ({"kite": good[:0]}, "class 'kite': expected at least one example, got none"),
        ({"kite": good[:, :3]}, r"'kite': expected shape \[n, 4\], got \(3, 3\)"),
        ({"kite": good[0]}, r"'kite': expected numbers of shape \[n, dim\], got"),
        ({"gull": good, "kite": _bad(good, 1, 0)}, "'kite': .*zeros in example 1 of 3"),
        ({"kite": _bad(good, 2, np.nan)}, "'kite': .*got nan in example 2 of 3"),
        ({"kite": _bad(good, 0, np.inf)}, "'kite': .*got inf in example 0 of 3"),
        ({"kite": good.astype(np.float64) * 1e39}, "'kite': .*inf in example 0 of 3"),
        ({3: good}, "expected class names as strings, got 3"),
    ]:
        with pytest.raises(ValueError, match=message):
            add_classes(birds, examples)
    with pytest.raises(ValueError, match=r"\['wren', 'robin'\], got \['kite'\]"):
        extend_classes(birds, {"kite": good})
    with pytest.raises(ValueError, match=r"\['wren', 'robin'\], got \['kite'\]"):
        remove_classes(birds, ["kite"])
    with pytest.raises(ValueError, match="list of class names, got the string 'wren'"):
        remove_classes(birds, "wren")
    with pytest.raises(ValueError, match="class 'wren': expected at least one example"):
        extend_classes(birds, {"wren": good[:0]})


def test_zero_is_a_prototype_like_any_other():
    named = new_named_head(2, kind="prototype")
    named = add_classes(named, {"zero": np.zeros((1, 2)), "one": np.ones((1, 2))})
    assert predict_classes(named, np.full((1, 2), 0.4)).names == ["zero"]


def test_bad_embeddings_are_not_predicted(birds, unchecked):
    z = np.ones((3, DIM), np.float32)
    with pytest.raises(ValueError, match="expected at least one class, got none"):
        predict_classes(new_named_head(DIM), z)
    with pytest.raises(ValueError, match=r"expected shape \[n, 4\], got \(1, 9\)"):
        predict_classes(birds, np.ones((1, 9)))
    with pytest.raises(ValueError, match="finite numbers, got nan in example 2 of 3"):
        predict_classes(birds, _bad(z, (2, 0), np.nan))
    tall = add_classes(new_named_head(DIM, kind="prototype"), {"a": z, "b": -z})
    with pytest.raises(ValueError, match="expected finite logits.*example 1 of 3"):
        predict_classes(tall, _bad(z, 1, 3e38))


def test_bad_heads_are_refused(key, birds, unchecked):
    base = cosine_head(key, DIM, 3)
    with pytest.raises(ValueError, match=r"distinct class names, got \['a'\] more"):
        name_classes(base, ["a", "b", "a"])
    with pytest.raises(ValueError, match="expected 3 names, one per class, got 2"):
        name_classes(base, ["a", "b"])
    with pytest.raises(ValueError, match="at least the 3 classes, got 2"):
        name_classes(base, ["a", "b", "c"], capacity=2)
    pooled = proxy_head(jnp.ones((2, DIM)), jnp.array([0, 1]), num_classes=2, proxies=2)
    with pytest.raises(ValueError, match="got 4 rows of 2 classes and pool = 'max'"):
        name_classes(pooled, ["a", "b"])
    with pytest.raises(ValueError, match="no sums for a linear head"):
        name_classes(as_linear(base), "abc", sums=birds.sums)
    with pytest.raises(ValueError, match=r"sums of shape \(3, 4\).*got \(4, 4\)"):
        name_classes(base, "abc", sums=birds.sums)
    for how, message in [
        ({"capacity": 0}, "at least 1, got 4 and 0"),
        ({"kind": "linear"}, "'prototype' or 'cosine', got 'linear'"),
        ({"scale": -1.0}, "expected a positive scale, got -1.0"),
        ({"scale": float("nan")}, "expected a positive scale, got nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            new_named_head(DIM, **how)
    with pytest.raises(ValueError, match=r"rows \(4, 4\) as before .*got \(3, 4\)"):
        with_trained_head(birds, base)


def test_appended_rows_have_the_mean_scale_and_no_bias(key, rng):
    base = dataclasses.replace(
        cosine_head(key, DIM, 3),
        scale=jnp.array([2.0, 4.0, 9.0]),
        bias=jnp.ones(3),
        owner=jnp.array([0, 1, -1]),
    )
    rows = jnp.asarray(rng.normal(size=(2, DIM)), jnp.float32)
    more = append_rows(base, rows, np.array([3, 4]))
    np.testing.assert_array_equal(more.weight, np.concatenate([base.weight, rows]))
    # The scale of the empty slot does not count.
    np.testing.assert_array_equal(more.scale, [2, 4, 9, 3, 3])
    np.testing.assert_array_equal(more.bias, [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(more.owner, [0, 1, -1, 3, 4])
    assert more.num_classes == 5 and more.pool is None
    traced = jax.jit(lambda o: append_rows(base, rows, o, num_classes=5))
    jax.tree.map(np.testing.assert_array_equal, traced(jnp.array([3, 4])), more)


def test_appended_prototypes_are_prototypes(rng):
    z = jnp.asarray(rng.normal(size=(6, DIM)) + 300, jnp.float32)
    sums = class_sums(z, jnp.arange(6), num_classes=6)
    some = class_sums(z[:4], jnp.arange(4), num_classes=4)
    more = append_rows(prototype_head(some), z[4:], np.array([4, 5]))
    one, other = (
        jax.nn.log_softmax(head_logits(head, z))
        for head in (more, prototype_head(sums))
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_bad_rows_are_not_appended(key, unchecked):
    base, rows = cosine_head(key, DIM, 3), jnp.ones((2, DIM))
    assert append_rows(base, rows, np.array([0, 3]), pool="max").num_classes == 4
    for call, message in [
        (
            lambda: append_rows(base, rows, np.array([3])),
            r"got shapes \(2, 4\) and \(1",
        ),
        (lambda: append_rows(base, rows[:, :2], np.array([3, 4])), r"rows \[more, 4\]"),
        (lambda: append_rows(base, rows, np.array([0, 3])), r"\[3, 4\], got.*\[0, 3\]"),
        (lambda: append_rows(base, rows, np.array([-2, 3])), "-1 to 3, got -2 to 3"),
        (
            lambda: jax.jit(lambda o: append_rows(base, rows, o))(jnp.arange(2)),
            "traced",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
