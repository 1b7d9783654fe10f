import dataclasses
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxfer import (
    Episode,
    check_episode,
    class_table,
    episode_key,
    gather,
    numbered_episode,
    sample_episode,
)
from jaxfer.data import Images
from jaxfer.data.resident import table_of

# Unequal classes, the rows of each scattered.
COUNTS = np.array([7, 12, 9, 20, 7, 8, 11, 7, 30, 7])
LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(10), COUNTS))
TABLE = class_table(LABELS, num_classes=10)
SHAPE = {"way": 5, "shot": 2, "n_query": 5}

_GOLDEN = """
import hashlib, jax, numpy as np
from jaxfer import class_table, episode_key, sample_episode
table = class_table(np.arange(1000) % 50, num_classes=50)
draw = jax.jit(lambda k: sample_episode(
    episode_key(7, "test", k), table, way=20, shot=5, n_query=15))
digest = hashlib.sha256()
for k in range(100):
    for part in draw(np.uint32(k))[:3]:
        assert part.dtype == np.int32, part.dtype
        digest.update(np.asarray(part).tobytes())
big = jax.random.key_data(episode_key(2**32 - 1, "test", 0))
print(digest.hexdigest()[:16], *np.asarray(big))
"""
GOLDEN = "b2a5116562b3b352 2204961875 4185866704"


def _draw(seed: int, split: str, number: int, **shape: int) -> Episode:
    key = episode_key(seed, split, number)
    return sample_episode(key, TABLE, **(SHAPE | shape))


def test_class_table_lists_every_row_of_every_class():
    for c, count in enumerate(COUNTS):
        np.testing.assert_array_equal(
            TABLE.rows[c, :count], np.flatnonzero(LABELS == c)
        )
        assert not TABLE.rows[c, count:].any()
    np.testing.assert_array_equal(TABLE.counts, COUNTS)
    assert TABLE.rows.dtype == TABLE.counts.dtype == np.int32


def test_class_table_has_room_for_empty_classes_and_refuses_strange_labels():
    assert class_table(np.array([2, 2]), num_classes=4).counts.tolist() == [0, 0, 2, 0]
    with pytest.raises(ValueError, match="labels from 0 to 4, got 0 to 5"):
        class_table(np.array([0, 5]), num_classes=5)
    with pytest.raises(ValueError, match="labels from 0 to 4, got -1 to 0"):
        class_table(np.array([0, -1]), num_classes=5)
    with pytest.raises(ValueError, match="num_classes of at least 1, got 0"):
        class_table(np.array([], np.int64), num_classes=0)


@pytest.mark.parametrize("number", range(20))
def test_support_and_query_are_disjoint_and_of_the_declared_size(number):
    # A peer's test shot was not the declared one; another's sets overlapped.
    support, query, classes, _ = _draw(0, "train", number)
    assert support.shape == (5, 2) and query.shape == (5, 5)
    assert len(set(classes.tolist())) == 5
    for row, c in enumerate(classes.tolist()):
        drawn = [*support[row].tolist(), *query[row].tolist()]
        assert len(set(drawn)) == 7
        assert (LABELS[drawn] == c).all()


def test_a_class_with_just_enough_rows_gives_them_all():
    episodes = [_draw(1, "train", k, way=10) for k in range(5)]
    for support, query, classes, _ in episodes:
        row = classes.tolist().index(0)
        drawn = {*support[row].tolist(), *query[row].tolist()}
        assert drawn == set(np.flatnonzero(LABELS == 0).tolist())


def _chi_square_within_bounds(observed: np.ndarray, expected: np.ndarray) -> bool:
    """Within six standard deviations of chi-square's mean, either side."""
    dof = observed.size - 1
    chi2 = ((observed - expected) ** 2 / expected).sum()
    return abs(chi2 - dof) < 6 * np.sqrt(2 * dof)


@pytest.fixture(scope="module")
def many():
    keys = jax.vmap(lambda k: episode_key(5, "train", k))(jnp.arange(20_000))
    draw = jax.jit(jax.vmap(lambda key: sample_episode(key, TABLE, **SHAPE)))
    return jax.device_get(draw(keys))


def test_classes_are_uniform(many):
    observed = np.bincount(many.classes.ravel(), minlength=10)
    assert _chi_square_within_bounds(observed, np.full(10, observed.sum() / 10))


@pytest.mark.parametrize("part", ["support", "query"])
def test_rows_are_uniform_within_their_class(many, part):
    # Records in file order, sampled from a shuffle buffer, inflated a peer's results.
    drawn = np.bincount(getattr(many, part).ravel(), minlength=len(LABELS))
    for c in range(10):
        observed = drawn[LABELS == c]
        expected = np.full(observed.size, observed.mean())
        if observed.size > 1:
            assert _chi_square_within_bounds(observed, expected), c


def test_first_class_and_first_support_row_are_uniform(many):
    # Order is random too, so any prefix of an episode is an episode.
    first = np.bincount(many.classes[:, 0], minlength=10)
    assert _chi_square_within_bounds(first, np.full(10, 2000.0))
    of_class = many.support[many.classes[:, 0] == 3, 0, 0]
    observed = np.bincount(of_class, minlength=len(LABELS))[LABELS == 3]
    assert _chi_square_within_bounds(observed, np.full(20, observed.mean()))


def test_an_episode_hangs_on_seed_split_and_number_alone():
    base = _draw(0, "train", 3)
    jax.tree.map(np.testing.assert_array_equal, base, _draw(0, "train", 3))
    for other in (_draw(1, "train", 3), _draw(0, "test", 3), _draw(0, "train", 4)):
        assert (base.support != other.support).any()


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_beyond_32_bits_is_refused(seed):
    # Its key would be another one under x64.
    with pytest.raises(ValueError, match=f"expected a seed from 0 to.*got {seed}"):
        episode_key(seed, "train", 0)


def test_vmap_equals_a_loop_and_jit_equals_eager():
    def draw(k):
        return sample_episode(episode_key(0, "train", k), TABLE, **SHAPE)

    batched = jax.vmap(draw)(jnp.arange(4))
    for k in range(4):
        for other in (jax.tree.map(lambda x, k=k: x[k], batched), jax.jit(draw)(k)):
            jax.tree.map(np.testing.assert_array_equal, draw(k), other)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"JAX_ENABLE_X64": "1"},
        {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
        {"JAX_THREEFRY_PARTITIONABLE": "0"},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"},
    ],
    ids=lambda e: next(iter(e), "default"),
)
def test_golden_hash_of_100_episodes(environment):
    done = subprocess.run(
        [sys.executable, "-c", _GOLDEN],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == GOLDEN, done.stderr


def test_gather_takes_rows_of_images_and_of_features(rng):
    episode = _draw(0, "train", 0)
    images = jnp.asarray(rng.integers(0, 255, (len(LABELS), 4, 4, 1)), jnp.uint8)
    taken = gather(images, episode)
    assert taken.support.shape == (5, 2, 4, 4, 1)
    for row in range(5):
        for j in range(5):
            np.testing.assert_array_equal(
                taken.query[row, j], images[episode.query[row, j]]
            )
    features = jnp.asarray(rng.normal(size=(len(LABELS), 6)), jnp.float32)
    np.testing.assert_array_equal(
        gather(features, episode).support, features[episode.support]
    )
    np.testing.assert_array_equal(taken.classes, episode.classes)


def test_unbalanced_support_sets_have_from_the_least_to_all_examples():
    shape = {"way": 5, "shot": 4, "n_query": 2}
    sample = jax.jit(
        jax.vmap(lambda k: numbered_episode(TABLE, 0, "test", k, **shape, least_shot=2))
    )
    found = sample(jnp.arange(400))
    counts = np.bincount(np.asarray(found.shots).ravel(), minlength=5)
    assert counts[:2].sum() == 0
    # 2000 draws of three values: 5 standard deviations are 105.
    assert np.abs(counts[2:] - 2000 / 3).max() < 106
    # The examples are those of balanced episodes.
    balanced = numbered_episode(TABLE, 0, "test", 7, **shape)
    assert balanced.shots is None
    np.testing.assert_array_equal(found.support[7], balanced.support)
    np.testing.assert_array_equal(found.query[7], balanced.query)
    for least in (0, 5):
        with pytest.raises(ValueError, match=f"from 1 to shot = 4, got {least}"):
            numbered_episode(TABLE, 0, "test", 7, **shape, least_shot=least)
        with pytest.raises(ValueError, match=f"from 1 to shot = 4, got {least}"):
            check_episode(TABLE, NAMES, **shape, least_shot=least)


NAMES = [f"c{i}" for i in range(10)]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"way": 11}, "at least way = 11 classes, got 10 in the attic"),
        ({"way": 0}, "expected way of at least 1, got 0"),
        ({"shot": -1}, "expected shot of at least 0, got -1"),
        ({"n_query": 0}, "expected n_query of at least 1, got 0"),
        (
            {"shot": 3},
            r"shot \+ n_query = 8 images, got 7 in class 'c0' of the attic",
        ),
    ],
)
def test_impossible_episodes_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        check_episode(TABLE, NAMES, **(SHAPE | shape), where="the attic")


SHORT = class_table(np.array([0] * 5 + [1] * 9 + [2] * 2), num_classes=3)


@pytest.mark.parametrize("put", [lambda x: x, jnp.asarray], ids=["numpy", "jax"])
def test_a_class_with_too_few_rows_is_refused_where_episodes_are_sampled(put):
    table = jax.tree.map(put, SHORT)
    message = r"shot \+ n_query = 3 images, got 2 in class 2 of the table"
    with pytest.raises(ValueError, match=message):
        numbered_episode(table, 0, "train", 0, way=2, shot=1, n_query=2)
    draw = partial(numbered_episode, table, 0, "train", way=2, shot=1, n_query=2)
    with pytest.raises(ValueError, match=message):
        jax.jit(draw)(0)
    with pytest.raises(ValueError, match=message):
        jax.vmap(draw)(jnp.arange(3))
    key = episode_key(0, "train", 0)
    with pytest.raises(ValueError, match=r"shot \+ n_query = 20 images, got 2"):
        sample_episode(key, table, way=2, shot=5, n_query=15)
    with pytest.raises(ValueError, match="at least way = 4 classes, got 3"):
        sample_episode(key, table, way=4, shot=1, n_query=1)
    for how, name in [({"way": 0}, "way"), ({"n_query": -1}, "n_query")]:
        with pytest.raises(ValueError, match=f"expected {name} of at least"):
            sample_episode(key, table, **({"way": 2, "shot": 1, "n_query": 1} | how))
    assert sample_episode(key, table, way=3, shot=2, n_query=0).query.shape == (3, 0)


def test_a_short_class_of_a_traced_table_lends_no_row_of_another_class():
    draw = jax.jit(
        lambda table, k: numbered_episode(
            table, 0, "train", k, way=3, shot=1, n_query=3
        )
    )
    labels = np.array([0] * 5 + [1] * 9 + [2] * 2)
    for k in range(5):
        support, query, classes, _ = draw(SHORT, k)
        for rows in (support, query):
            assert (labels[rows] == np.asarray(classes)[:, None]).all()


def test_an_episode_number_beyond_32_bits_is_refused():
    for number in (-1, 2**32):
        with pytest.raises(ValueError, match=f"an episode from 0 to.*got {number}"):
            episode_key(0, "train", number)


def test_possible_episodes_are_not_refused():
    check_episode(TABLE, NAMES, way=10, shot=2, n_query=5)


GROUPS = np.array([0, 1, 0, 1, 1, 2, 2, 1, 0, 2])


def test_the_classes_of_an_episode_may_be_of_one_group():
    table = TABLE._replace(groups=GROUPS)
    draw = jax.jit(
        jax.vmap(
            lambda k: numbered_episode(table, 0, "test", k, way=3, shot=1, n_query=2)
        )
    )
    n = 3000
    episodes = draw(jnp.arange(n, dtype=jnp.uint32))
    groups = GROUPS[np.asarray(episodes.classes)]
    assert (groups == groups[:, :1]).all()
    assert all(len({*row}) == 3 for row in np.asarray(episodes.classes).tolist())
    # Every group has the same share, whatever its number of classes.
    shares = np.bincount(groups[:, 0]) / n
    np.testing.assert_allclose(shares, 1 / 3, atol=4 * np.sqrt(2 / 9 / n))
    # Within the group of four, every class has the same share.
    own = np.asarray(episodes.classes)[groups[:, 0] == 1]
    counts = np.bincount(own.ravel(), minlength=10)[GROUPS == 1] / len(own)
    np.testing.assert_allclose(counts, 3 / 4, atol=0.06)
    alone = numbered_episode(table, 0, "test", 7, way=3, shot=1, n_query=2)
    for one, other in zip(alone, jax.tree.map(lambda x: x[7], episodes), strict=True):
        np.testing.assert_array_equal(one, other)


def test_groups_that_are_too_small_are_not_chosen_and_refused_if_all_are():
    table = TABLE._replace(groups=GROUPS)
    for k in range(20):
        episode = numbered_episode(table, 0, "test", k, way=4, shot=1, n_query=2)
        assert (GROUPS[np.asarray(episode.classes)] == 1).all()
    with pytest.raises(ValueError, match="a group of at least way = 5 .* at most 4"):
        numbered_episode(table, 0, "test", 0, way=5, shot=1, n_query=2)


def test_groups_are_what_precedes_a_slash():
    names = ("a/x", "b/x", "a/y", "b/y")
    images = np.zeros((8, 1, 1, 1), np.uint8)
    data = Images("x", images, np.arange(8, dtype=np.int32) % 4, names)
    assert table_of(data).groups is None
    table = table_of(dataclasses.replace(data, grouped=True))
    assert table.groups.tolist() == [0, 1, 0, 1]
    part = dataclasses.replace(data, grouped=True).take_classes(names[1:], name="y")
    assert table_of(part).groups.tolist() == [1, 0, 1]
