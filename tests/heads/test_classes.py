"""Classes that come, learn more and go, by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import (
    add_classes,
    classes_of,
    cosine_head,
    extend_classes,
    head_logits,
    linear_head,
    new_classes,
    predicted_names,
    remove_classes,
    trained_classes,
)

DIM = 4


def _examples(rng, *names, n=3):
    return {name: rng.normal(size=(n, DIM)).astype(np.float32) for name in names}


def _row(z):
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    mean = unit.mean(axis=0)
    return mean / np.linalg.norm(mean)


@pytest.fixture
def birds(rng):
    return add_classes(new_classes(DIM, capacity=4), _examples(rng, "wren", "robin"))


def test_added_classes_are_known_at_once(rng):
    examples = _examples(rng, "wren", "robin", "kite")
    birds = add_classes(new_classes(DIM, capacity=4), examples)
    assert birds.names == ("wren", "robin", "kite", None)
    for row, z in zip(birds.head.weight, examples.values(), strict=False):
        np.testing.assert_allclose(row, _row(z), rtol=1e-5)
    z = np.stack([_row(examples[name]) for name in ("kite", "wren", "robin")])
    assert predicted_names(birds, 7 * z) == ["kite", "wren", "robin"]


def test_more_examples_later_are_as_good_as_at_first(rng):
    examples = _examples(rng, "wren", "robin", n=5)
    some = {name: z[:2] for name, z in examples.items()}
    rest = {name: z[2:] for name, z in examples.items()}
    whole = add_classes(new_classes(DIM), examples)
    parts = extend_classes(add_classes(new_classes(DIM), some), rest)
    np.testing.assert_allclose(
        parts.head.weight, whole.head.weight, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(parts.memory.count, whole.memory.count)


def test_a_removed_class_leaves_its_slot_and_the_others_bits(birds, rng):
    left = remove_classes(birds, ["wren"])
    assert left.names == (None, "robin", None, None)
    np.testing.assert_array_equal(left.head.weight[1], birds.head.weight[1])
    assert predicted_names(left, np.asarray(birds.head.weight[:2])) == ["robin"] * 2
    examples = _examples(rng, "kite")
    again = add_classes(left, examples)
    assert again.names == ("kite", "robin", None, None)
    # Nothing of the class before it is left in the slot.
    np.testing.assert_allclose(again.head.weight[0], _row(examples["kite"]), rtol=1e-5)


def test_a_compiled_classifier_takes_new_classes_as_it_is(birds, rng):
    traces = []

    @jax.jit
    def logits(head, z):
        traces.append(1)
        return head_logits(head, z)

    z = jnp.ones((2, DIM))
    before = logits(birds.head, z)
    more = add_classes(birds, _examples(rng, "kite"))
    more = remove_classes(extend_classes(more, _examples(rng, "kite")), ["wren"])
    after = logits(more.head, z)
    assert len(traces) == 1
    np.testing.assert_array_equal(np.isfinite(before[0]), [1, 1, 0, 0])
    np.testing.assert_array_equal(np.isfinite(after[0]), [0, 1, 1, 0])
    np.testing.assert_array_equal(after[:, 1], before[:, 1])


@pytest.mark.parametrize("per_class", [False, True])
def test_slots_double_when_they_are_full(birds, rng, per_class):
    birds = new_classes(DIM, capacity=2, scale=3.0, scale_per_class=per_class)
    names = [f"bird{i}" for i in range(5)]
    examples = _examples(rng, *names)
    birds = add_classes(birds, examples)
    assert len(birds.names) == 8 and birds.head.num_classes == 8
    assert birds.head.scale.shape == ((8,) if per_class else ())
    z = jnp.stack([_row(examples[name]) for name in names])
    assert predicted_names(birds, z) == names
    np.testing.assert_allclose(head_logits(birds.head, z).max(axis=1), 3, rtol=1e-5)


def test_a_trained_base_keeps_its_bits_and_its_logits(key, rng):
    base = cosine_head(key, DIM, 3)
    names = ["wren", "robin", "kite"]
    grown = add_classes(classes_of(base, names, capacity=5), _examples(rng, "gull"))
    z = jnp.asarray(rng.normal(size=(6, DIM)), jnp.float32)
    np.testing.assert_array_equal(grown.head.weight[:3], base.weight)
    np.testing.assert_allclose(
        head_logits(grown.head, z)[:, :3], head_logits(base, z), rtol=1e-6
    )
    assert grown.trained == set(names)


def test_a_trained_class_is_extended_only_when_asked(birds, rng):
    moved = np.array(birds.head.weight)
    moved[1] += 0.1
    tuned = trained_classes(
        birds, dataclasses.replace(birds.head, weight=jnp.asarray(moved))
    )
    assert tuned.trained == {"robin"}
    more = _examples(rng, "robin")
    with pytest.raises(ValueError, match=r"\['robin'\] were trained.*forget_training"):
        extend_classes(tuned, more)
    again = extend_classes(tuned, more, forget_training=True)
    np.testing.assert_array_equal(
        again.head.weight, extend_classes(birds, more).head.weight
    )
    assert not again.trained
    # The other one was not trained.
    assert extend_classes(tuned, _examples(rng, "wren")).memory.count[0] == 6


def _bad(z, row, value):
    z = np.array(z)
    z[row] = value
    return z


def test_bad_examples_are_refused_by_name(birds, rng):
    good = rng.normal(size=(3, DIM)).astype(np.float32)
    for examples, message in [
        ({"wren": good}, r"\['wren'\] are classes already"),
        ({"kite": good[:0]}, "class 'kite': found no example, needed at least one"),
        ({"kite": good[:, :3]}, r"class 'kite': found shape \(3, 3\), needed \[n, 4\]"),
        ({"gull": good, "kite": _bad(good, 1, 0)}, "'kite': example 1 of 3 has a zero"),
        ({"kite": _bad(good, 2, np.nan)}, "class 'kite': example 2 of 3 has nan"),
        ({"kite": _bad(good, 0, np.inf)}, "class 'kite': example 0 of 3 has inf"),
    ]:
        with pytest.raises(ValueError, match=message):
            add_classes(birds, examples)
    with pytest.raises(ValueError, match=r"\['kite'\].*no classes: there are \['wren"):
        extend_classes(birds, {"kite": good})
    with pytest.raises(ValueError, match=r"\['kite'\].*no classes"):
        remove_classes(birds, ["kite"])
    with pytest.raises(ValueError, match="class 'wren': found no example"):
        extend_classes(birds, {"wren": good[:0]})


def test_bad_classifiers_are_refused(key, birds):
    base = cosine_head(key, DIM, 3)
    with pytest.raises(ValueError, match=r"found \['a'\] more than once"):
        classes_of(base, ["a", "b", "a"])
    with pytest.raises(ValueError, match="found 2 names.*each of the 3 classes"):
        classes_of(base, ["a", "b"])
    with pytest.raises(ValueError, match="found capacity 2, needed at least the 3"):
        classes_of(base, ["a", "b", "c"], capacity=2)
    with pytest.raises(ValueError, match="unit = False.*`as_cosine`"):
        classes_of(linear_head(key, DIM, 3), ["a", "b", "c"])
    with pytest.raises(ValueError, match="found capacity 0"):
        new_classes(DIM, capacity=0)
    with pytest.raises(ValueError, match="found no class"):
        predicted_names(new_classes(DIM), np.ones((1, DIM)))
    with pytest.raises(ValueError, match=r"the embeddings: found shape \(1, 9\)"):
        predicted_names(birds, np.ones((1, 9)))
    with pytest.raises(ValueError, match=r"rows \(3, 4\), needed the \(4, 4\)"):
        trained_classes(birds, base)
