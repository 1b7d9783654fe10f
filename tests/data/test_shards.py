import numpy as np
import pytest

from jaxfer.data.shards import Shards, write_shards


@pytest.mark.parametrize("limit", [1.0, 100.0, 1e9])
def test_rows_are_those_of_the_array(tmp_path, rng, limit):
    array = rng.normal(size=(50, 3, 2)).astype(np.float32)
    shards = write_shards(tmp_path, np.split(array, [7, 20, 21]), limit=limit)
    assert len(list(tmp_path.glob("*.npy"))) == {1.0: 4, 100.0: 4, 1e9: 1}[limit]
    assert (shards.shape, shards.dtype) == (array.shape, array.dtype)
    rows = rng.integers(0, 50, 30)
    np.testing.assert_array_equal(shards[rows], array[rows])
    np.testing.assert_array_equal(Shards(tmp_path)[rows], array[rows])


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with pytest.raises(ValueError, match="shards in .* are damaged .*remove the fol"):
        Shards(tmp_path)
    write_shards(tmp_path, [np.zeros((4, 2))])
    (tmp_path / "00000.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="are damaged"):
        Shards(tmp_path)
