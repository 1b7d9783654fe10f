import io
import shutil

import jax
import numpy as np
import pytest

from jaxfer import embed, embed_folder, init_model, measure_episodes
from jaxfer.data import load_bank, save_bank, undivided_images
from jaxfer.data.bank import hash_of
from jaxfer.models import EpisodeShape, banks, embed_on_host, model_hash
from jaxfer.nets import Conv4

Image = pytest.importorskip("PIL.Image")
SIDE = 16


@pytest.fixture(scope="module")
def model():
    return init_model(Conv4(width=4), (SIDE, SIDE, 3), jax.random.key(0))


@pytest.fixture
def counted(monkeypatch):
    """How many images were embedded by each call."""
    calls = []

    def counting(model, images, **how):
        calls.append(len(images))
        return embed_on_host(model, images, **how)

    monkeypatch.setattr(banks, "embed_on_host", counting)
    return calls


def quietly(*args, **how):
    return embed_folder(*args, progress=False, **how)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_bank_holds_the_embeddings_of_a_folder(model, photographs, tmp_path, suffix):
    path = tmp_path / f"bank{suffix}"
    bank = quietly(model, photographs, path)
    images = undivided_images(photographs, SIDE)
    np.testing.assert_array_equal(bank.embeddings, embed(model, images))
    np.testing.assert_array_equal(bank.labels, images.labels)
    assert bank.class_names == ("kite", "robin", "wren") and bank.num_train is None
    assert bank.names[0] == "kite/kite00.jpg"
    assert bank.hashes[0] == hash_of((photographs / bank.names[0]).read_bytes())
    assert bank.about["model"] == model_hash(model) and bank.about["net"] == "Conv4"
    again = load_bank(path)
    assert [*tmp_path.iterdir()] == [path]
    np.testing.assert_array_equal(again.embeddings, bank.embeddings)
    np.testing.assert_array_equal(again.labels, bank.labels)
    assert (again.names, again.hashes, again.about) == (
        bank.names,
        bank.hashes,
        bank.about,
    )


def test_parts_stay_apart(model, parted):
    bank = quietly(model, parted)
    assert bank.num_train == 18 and len(bank.labels) == 36
    assert all(name.startswith("train/") for name in bank.names[:18])


def test_only_new_images_are_embedded(model, photographs, tmp_path, counted):
    folder, path = tmp_path / "birds", tmp_path / "bank.npz"
    shutil.copytree(photographs, folder)
    first = quietly(model, folder, path)
    shutil.copytree(photographs / "kite", folder / "gull")
    (folder / "wren" / "new.png").write_bytes(_png(3))
    second = quietly(model, folder, path)
    assert counted == [36, 1], "copies have the hashes of known images"
    assert len(second.labels) == 49 and second.class_names[0] == "gull"
    at = second.names.index("wren/wren00.jpg")
    np.testing.assert_array_equal(
        second.embeddings[at], first.embeddings[first.names.index("wren/wren00.jpg")]
    )


def test_an_interrupted_call_goes_on(
    model, photographs, tmp_path, counted, monkeypatch
):
    whole, path = quietly(model, photographs), tmp_path / "bank.npz"
    monkeypatch.setattr(banks, "_PART", 10)
    real = banks.embed_on_host

    def failing(model, images, **how):
        if len(counted) == 3:
            raise KeyboardInterrupt
        return real(model, images, **how)

    monkeypatch.setattr(banks, "embed_on_host", failing)
    counted.clear()
    with pytest.raises(KeyboardInterrupt):
        quietly(model, photographs, path)
    assert not path.exists() and counted == [10, 10, 10]
    monkeypatch.setattr(banks, "embed_on_host", real)
    resumed = quietly(model, photographs, path)
    assert sum(counted) == 36 and [*tmp_path.iterdir()] == [path]
    np.testing.assert_allclose(resumed.embeddings, whole.embeddings, rtol=1e-5)


def test_a_folder_without_classes_has_no_labels(model, photographs):
    bank = quietly(model, photographs / "kite")
    assert (bank.labels == -1).all() and bank.class_names == ()
    assert bank.names[0] == "kite00.jpg"
    with pytest.raises(ValueError, match="a label for every embedding, got none: kite"):
        bank.images()


def test_episodes_of_a_bank_are_those_of_its_images(model, photographs):
    bank, images = quietly(model, photographs), undivided_images(photographs, SIDE)
    shape = EpisodeShape(way=2, shot=1, n_query=3)
    how = {"seed": 0, "split": "test", "episodes": 5}
    found = measure_episodes(model, bank.resident(), shape, **how)
    expected = measure_episodes(model, images, shape, **how)
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name], x)


def test_a_bank_of_another_model_is_not_overwritten(model, photographs, tmp_path):
    path = tmp_path / "bank.npz"
    quietly(model, photographs, path)
    other = init_model(Conv4(width=4), (SIDE, SIDE, 3), jax.random.key(1))
    with pytest.raises(ValueError, match="expected a bank of the model .*bank.npz"):
        quietly(other, photographs, path)


def test_a_damaged_bank_is_refused_by_name(model, photographs, tmp_path):
    path = tmp_path / "bank.npz"
    bank = quietly(model, photographs, path)
    for suffix in (".npz", ".safetensors"):
        path = save_bank(tmp_path / f"bank{suffix}", bank)
        data = bytearray(path.read_bytes())
        at = data.index(bank.embeddings.tobytes()[:64])
        data[at + 5] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(ValueError, match=f"bank{suffix} cannot be read: "):
            load_bank(path)
        path.write_bytes(bytes(data[: len(data) // 2]))
        with pytest.raises(ValueError, match=f"bank{suffix} cannot be read: "):
            load_bank(path)
    with pytest.raises(ValueError, match="to end in .npz or .safetensors, got .*a.txt"):
        load_bank(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="got no file at .*none.npz"):
        load_bank(tmp_path / "none.npz")


def _png(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (5, 5), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()
