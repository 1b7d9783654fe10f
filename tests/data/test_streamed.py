"""The streamed pipeline: the episodes of the resident one, image by image."""

import itertools
import pickle
import shutil
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from jaxfer.data import draw, floats, load, resident, stream
from jaxfer.data.images import Images
from jaxfer.data.view import View

pytest.importorskip("grain")
SHAPE = {"way": 5, "shot": 2, "n_query": 3}


def _assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def _take(count, batches):
    return [jax.device_get(batch) for batch in itertools.islice(batches, count)]


def _assert_streams_what_is_drawn(images, in_memory):
    """Check the beginning, and the border between two blocks of sampled rows."""
    at = stream(images, 7, "train", **SHAPE, per_step=2)
    data = jax.device_put(resident(in_memory))
    one = jax.jit(lambda k: draw(data, 7, "train", k, **SHAPE))
    for first in (0, 126):
        for step, batch in enumerate(_take(4, at(first)), first):
            assert batch.support.dtype == np.uint8
            for i in range(2):
                episode = jax.tree.map(lambda x, i=i: x[i], batch)
                _assert_same(floats(episode), one(2 * step + i))


def test_glyphs_are_those_of_the_resident_pipeline(small_glyphs):
    images = load("glyphs", ["train"])["train"]
    _assert_streams_what_is_drawn(images, images.in_memory())


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_omniglot_from_its_records_is_that_of_the_resident_pipeline(
    real_data, omniglot_images, split
):
    """Decoding, rotation and transposition agree, while reading and before."""
    from jaxfer.data import omniglot_split

    images = load("omniglot", [split], real_data / "tfds", limit=0.0)[split]
    assert not isinstance(images.images.store, np.ndarray)
    _assert_streams_what_is_drawn(images, omniglot_split(omniglot_images, split))


def test_a_memory_mapped_cache_is_read_where_it_lies(tmp_path, blobs):
    from jaxfer.data import read_cache, write_cache

    images = read_cache(write_cache(blobs, tmp_path / "blobs.cache"))
    assert isinstance(images.images, np.memmap)
    _assert_streams_what_is_drawn(images, blobs)


@pytest.mark.parametrize("first", [0, 1, 255, 256, 300])
def test_it_goes_on_wherever_it_stopped(blobs, first):
    at = stream(blobs, 0, "train", **SHAPE)
    whole = _take(first + 3, at(0))
    _assert_same(_take(3, at(first)), whole[first:])


def test_neither_workers_nor_processes_nor_epochs_repeat_or_change_an_episode(blobs):
    """Workers share no seed, epochs differ, and processes are not seeded from entropy
    (protocols of peers, pitfall 7)."""
    streams = [
        _take(70, stream(blobs, 0, "train", **SHAPE, per_step=4, workers=workers)(0))
        for workers in (1, 2, 8)
    ]
    _assert_same(streams[0], streams[1])
    _assert_same(streams[0], streams[2])
    halves = [
        _take(70, stream(blobs, 0, "train", **SHAPE, per_step=4, share=(i, 2))(0))
        for i in range(2)
    ]
    for whole, *parts in zip(streams[0], *halves, strict=True):
        _assert_same(whole, jax.tree.map(lambda *x: np.concatenate(x), *parts))
    episodes = [e.tobytes() for batch in streams[0] for e in batch.support]
    assert len(set(episodes)) == 4 * 70
    other = _take(1, stream(blobs, 1, "train", **SHAPE, per_step=4)(0))
    assert other[0].support.tobytes() != streams[0][0].support.tobytes()


def test_what_the_readers_run_needs_no_jax(real_data, tmp_path):
    """A process that cannot import JAX reads the same pixels."""
    images = load("omniglot", ["test"], real_data / "tfds", limit=0.0)["test"].images
    rows = np.array([[0, 5], [20000, 33839]])
    with open(tmp_path / "view", "wb") as file:
        pickle.dump((images, rows), file)
    code = (
        "import pickle, sys\n"
        "sys.modules['jax'] = sys.modules['jaxlib'] = None\n"
        "images, rows = pickle.load(open(sys.argv[1], 'rb'))\n"
        "sys.stdout.buffer.write(images[rows].tobytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "view")], capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout == images[rows].tobytes()


def test_batches_are_read_and_put_ahead(blobs):
    put = []

    def watched(batch):
        put.append(batch)
        return batch

    batches = stream(blobs, 0, "train", **SHAPE, put=watched)(0)
    next(batches)
    assert len(put) == 3


def test_a_truncated_record_is_refused_with_its_file(real_data, tmp_path):
    shutil.copytree(
        real_data / "tfds" / "omniglot",
        tmp_path / "omniglot",
        copy_function=shutil.copyfile,
    )
    (file,) = tmp_path.glob("omniglot/*/omniglot-test.array_record*")
    pixels = file.read_bytes()
    file.write_bytes(pixels[: len(pixels) // 2])
    message = r"record 0 of .*omniglot-test.array_record-00000-of-00001 is damaged"
    with pytest.raises(ValueError, match=message):
        load("omniglot", ["test"], tmp_path)


def test_a_record_that_breaks_during_training_is_refused(blobs):
    class Broken:
        shape = blobs.images.shape

        def __getitem__(self, rows):
            raise ValueError("record 7 of there is damaged")

    images = Images("broken", View.of(Broken()), blobs.labels, blobs.class_names)
    batches = stream(images, 0, "train", **SHAPE)(0)
    with pytest.raises(ValueError, match="record 7 of there is damaged"):
        next(batches)


@pytest.mark.parametrize("share", [(0, 2), (3, 3), (-1, 3)])
def test_unequal_shares_are_refused(blobs, share):
    with pytest.raises(ValueError, match="equal shares of per_step = 3 episodes, got"):
        stream(blobs, 0, "train", **SHAPE, per_step=3, share=share)


def test_without_grain_the_extra_is_named(blobs, monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match=r"expected grain .*'jaxfer\[data\]'"):
        stream(blobs, 0, "train", **SHAPE)


def test_rows_are_drawn_in_a_thread_of_their_own(blobs, monkeypatch):
    """Grain's threads only read: no JAX code runs in them."""
    streamed = sys.modules["jaxfer.data.streamed"]
    drew, read = set(), set()
    real = streamed.numbered_episode

    def drawing(*args, **kwargs):
        drew.add(threading.current_thread().name)
        return real(*args, **kwargs)

    class Watched:
        shape = blobs.images.shape

        def __getitem__(self, rows):
            read.add(threading.current_thread().name)
            return blobs.images[rows]

    monkeypatch.setattr(streamed, "numbered_episode", drawing)
    images = Images("watched", View.of(Watched()), blobs.labels, blobs.class_names)
    _take(600, stream(images, 0, "train", **SHAPE, workers=3)(0))
    assert {name.rsplit("_", 1)[0] for name in drew} == {"drawer"}
    assert len(read) >= 2 and not drew & read


def test_batches_land_where_they_are_put(blobs):
    device = jax.devices()[5]
    batches = stream(
        blobs, 0, "train", **SHAPE, put=lambda x: jax.device_put(x, device)
    )(0)
    assert next(batches).query.devices() == {device}


def test_episodes_that_the_data_cannot_give_are_refused(blobs):
    with pytest.raises(ValueError, match="least way = 31 classes, got 30 in blobs"):
        stream(blobs, 0, "train", way=31, shot=1, n_query=1)
    with pytest.raises(ValueError, match=r"shot \+ n_query = 13 images, got 12 in"):
        stream(blobs, 0, "train", way=5, shot=10, n_query=3)
