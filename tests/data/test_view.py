import threading
import time

import numpy as np
import pytest

from jaxfer.data import View


@pytest.fixture
def store(rng):
    return rng.integers(0, 256, (6, 5, 5, 2), dtype=np.uint8)


def _by_hand(store, row, turns, transposed):
    image = np.rot90(store[row], turns)
    return image.swapaxes(0, 1) if transposed else image


@pytest.mark.parametrize("transposed", [False, True])
def test_it_reads_what_is_chosen_and_turned(store, transposed):
    rows, turns = np.array([4, 0, 4, 5]), np.array([1, 0, 3, 2])
    view = View.of(store).take(rows).turned(turns)
    view = view.transpose() if transposed else view
    expected = np.stack(
        [_by_hand(store, r, t, transposed) for r, t in zip(rows, turns, strict=True)]
    )
    assert view.shape == expected.shape and view.nbytes == expected.nbytes
    assert len(view) == 4 and view.ndim == 4 and view.dtype == np.uint8
    np.testing.assert_array_equal(np.asarray(view), expected)
    np.testing.assert_array_equal(view[2], expected[2])
    np.testing.assert_array_equal(view[1:3], expected[1:3])
    index = np.array([[3, 0], [1, 1]])
    np.testing.assert_array_equal(view[index], expected[index])


def test_turns_add_up_before_and_after_a_transpose(store):
    once = np.full(6, 1)
    for quarters in range(5):
        view, expected = View.of(store).transpose(), store.swapaxes(1, 2)
        for _ in range(quarters):
            view, expected = view.turned(once), np.rot90(expected, axes=(1, 2))
        np.testing.assert_array_equal(np.asarray(view), expected)
    np.testing.assert_array_equal(View.of(store).transpose().transpose()[:], store)


def test_height_and_width_may_differ_where_nothing_turns(rng):
    store = rng.integers(0, 256, (3, 4, 7, 1), dtype=np.uint8)
    view = View.of(store).transpose().take(np.array([2, 0]))
    assert view.shape == (2, 7, 4, 1)
    np.testing.assert_array_equal(view[:], store[[2, 0]].swapaxes(1, 2))


def test_the_store_is_read_when_indexed_and_never_written(store):
    class Counted:
        shape = store.shape
        asked = []

        def __getitem__(self, rows):
            self.asked.append(list(rows))
            return store[rows]

    before, counted = store.copy(), Counted()
    view = View.of(counted).take(np.array([5, 1, 2])).turned(np.array([1, 2, 3]))
    assert view.nbytes == 150 and counted.asked == []
    view[np.array([2, 0])][:] = 0
    view[0:1][:] = 0
    assert counted.asked == [[2, 5], [5]]

    class Whole:
        shape = store.shape

        def __getitem__(self, rows):
            return store[:]

    View.of(Whole()).turned(np.arange(6) % 4)[:][:] = 0
    np.testing.assert_array_equal(store, before)
    whole = View.of(store)
    assert View.of(whole) is whole
    with pytest.raises(ValueError, match="expected copy = True"):
        whole.__array__(copy=False)


class _Decoder:
    """A store that is not an array: it knows its threads, and may fail."""

    def __init__(self, images, bad=()):
        self.shape, self.images, self.bad = images.shape, images, {*bad}
        self.threads = set()

    def __getitem__(self, rows):
        self.threads.add(threading.get_ident())
        time.sleep(0.002)
        for row in rows:
            if row in self.bad:
                raise ValueError(f"image {row} is damaged")
        return self.images[rows]


@pytest.mark.parametrize("workers", [1, 2, 5, None])
def test_several_threads_read_what_one_reads(rng, workers):
    images = rng.integers(0, 256, (333, 5, 5, 1), dtype=np.uint8)
    store = _Decoder(images)
    view = View.of(store).take(np.arange(332, -1, -1)).turned(np.arange(333) % 4)
    expected = view[:]
    store.threads.clear()
    np.testing.assert_array_equal(view.read(workers=workers), expected)
    assert len(store.threads) <= (workers or 99)
    assert workers != 5 or len(store.threads) > 1
    assert threading.get_ident() not in store.threads
    array = np.zeros((333, 5, 5, 1), np.uint8)
    view.read_into(array, workers=workers)
    np.testing.assert_array_equal(array, expected)


def test_the_first_damaged_image_ends_reading(rng):
    images = rng.integers(0, 256, (9999, 2, 2, 1), dtype=np.uint8)
    store = _Decoder(images, bad=(100, 200, 9000))
    with pytest.raises(ValueError, match="image 100 is damaged"):
        View.of(store).read(workers=3)


def test_the_bar_says_how_many_images_are_decoded(rng, capsys):
    images = rng.integers(0, 256, (1234, 1, 1, 1), dtype=np.uint8)
    View.of(_Decoder(images)).read(bar=True)
    assert "decoding 1,234 images" in capsys.readouterr().err
    View.of(_Decoder(images)).read()
    View.of(images).read(bar=True)
    assert not capsys.readouterr().err
