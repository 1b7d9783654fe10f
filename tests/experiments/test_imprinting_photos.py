"""The imprinting study on photographs: on the device, or read batch by batch."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.imprinting.classes import base_pixels, split_classes
from experiments.imprinting.config import Config, Data, Network, Rows
from experiments.imprinting.run import run
from experiments.inputs import load_parts, read_parts
from jaxfer import models
from jaxfer.data import Crop, View
from jaxfer.data.feed import place
from jaxfer.models import Options
from jaxfer.optim import Optim
from jaxfer.runlog import read_json
from jaxfer.study import member_folder
from jaxfer.trees import flatten

pytest.importorskip("grain")

CONFIG = Config(
    data=Data("folder", base=2, side=16, pixels="range"),
    # What is tested here is not the network, so it is one that compiles at once.
    net=Network("Flatten"),
    augment=Crop(shift=1, mirror=True, side=12),
    copies=2,
    dim=4,
    batch=8,
    epochs=3,
    optim=Optim("adam", 0.01),
    finetune=Optim("rmsprop", 0.01, head_rate=10.0),
    finetune_epochs=2,
    transfer_steps=4,
    shots=(1, 3),
    seeds=(0,),
    tuned=Rows((3,), (0,)),
    transfer=Rows((1,), (0,)),
    joint=Rows((), ()),
    losses=("nca",),
    group=4,
    run=Options(save_every=2, log_every=1, progress=False),
    figures=False,
)
STREAMED = dataclasses.replace(CONFIG.run, limit=0.0)


def _config(folder, *, options=CONFIG.run, **data):
    data = dataclasses.replace(CONFIG.data, dir=str(folder), **data)
    return dataclasses.replace(CONFIG, data=data, run=options)


@pytest.fixture(scope="module")
def resident(photographs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("resident")
    return run(_config(photographs), workdir), workdir


def _same_members(one, other):
    names = sorted(path.name for path in (one / "members").iterdir())
    assert len(names) == 2 + 4 + 2 + 2
    for name in names:
        ours, theirs = (
            read_json(member_folder(folder, name) / "record.json")["record"]
            for folder in (one, other)
        )
        assert ours["rows"] == theirs["rows"], name
        assert ours.get("epochs") == theirs.get("epochs"), name
        if "measure" in name:
            continue
        left, right = (
            models.load_model(member_folder(folder, name)) for folder in (one, other)
        )
        jax.tree.map(
            np.testing.assert_array_equal,
            (left.params, left.head and left.head.weight),
            (right.params, right.head and right.head.weight),
        )


# In the default run, tests/models compares streamed and resident trainings.
@pytest.mark.slow
def test_streamed_is_bit_identical_to_resident(resident, photographs, tmp_path, capsys):
    result, workdir = resident
    again = run(_config(photographs, options=STREAMED), tmp_path)
    assert "is streamed: " in capsys.readouterr().out
    assert again["metrics"] == result["metrics"]
    _same_members(tmp_path, workdir)
    shown = "members/seed0-measure-n1-softmax-d4/gallery.npz"
    with np.load(workdir / shown) as one, np.load(tmp_path / shown) as other:
        assert one["images"].shape[1:] == (16, 16, 3)
        for key in one.files:
            np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.slow
def test_a_streamed_study_resumes_after_a_kill(
    resident, photographs, tmp_path, kill_imprinting, capsys
):
    config = _config(photographs, options=STREAMED)
    kill_imprinting(config, tmp_path, call=6)
    capsys.readouterr()
    run(config, tmp_path)
    # 5 of the 6 steps of its first network were taken, and saved at every other.
    assert "train: going on from step 4 of 6" in capsys.readouterr().out
    _same_members(tmp_path, resident[1])


@pytest.mark.slow
def test_pixels_are_from_minus_one_to_one_and_the_window_is_kept(resident):
    folder = member_folder(resident[1], "seed0-base-softmax-d4")
    model = models.load_model(folder)
    ends = models.prepare(model.pixels, np.array([0, 255], np.uint8))
    np.testing.assert_allclose(ends, [-1, 1], rtol=1e-6)
    assert model.pixels.size == (16, 16) and model.pixels.window == 12
    kernel = flatten(model.params)["embedding/Dense_0/kernel"]
    assert kernel.shape == (12 * 12 * 3, 4)


def test_given_parts_and_moments_are_those_of_resident_images(parted):
    config = _config(parted, pixels="moments")
    found = []
    for limit in (0.0, 4.0):
        options = dataclasses.replace(config.run, limit=limit)
        train, test = read_parts(*load_parts(config.data), options)
        for part in (train, test):
            assert part.num_classes == 3 and len(part.labels) == 18
        split = split_classes(config, train, test, 0)
        found.append((split, base_pixels(config, train, split)))
    assert isinstance(place(train, limit=0.0).items, View)
    np.testing.assert_array_equal(*(pixels.mean for _, pixels in found))
    np.testing.assert_array_equal(*(pixels.std for _, pixels in found))
    np.testing.assert_array_equal(*(split.few for split, _ in found))
    known = train.images[found[1][0].train < 2].astype(np.float64)
    np.testing.assert_allclose(found[0][1].mean, known.mean(axis=0), rtol=1e-5)


def test_classes_may_be_base_by_their_number_of_images(photographs, tmp_path):
    parts = (photographs / "robin", photographs / "kite", photographs / "wren")
    for own, n in zip(parts, (5, 9, 12), strict=True):
        (tmp_path / own.name).mkdir()
        for file in sorted(own.iterdir())[:n]:
            (tmp_path / own.name / file.name).write_bytes(file.read_bytes())
    for name in ("owl", "crow"):
        (tmp_path / name).mkdir()
        for file in sorted(parts[0].iterdir())[: 2 if name == "owl" else 5]:
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    config = _config(tmp_path, base_min_images=8, min_images=3)
    split = split_classes(config, *load_parts(config.data), 0)
    # There are too few owls; two of the other four classes have eight to train on.
    assert split.base == 2 and {*split.names[:2]} == {"kite", "wren"}
    assert {*split.names[2:]} == {"crow", "robin"}
    every = _config(tmp_path, base_min_images=1, min_images=3)
    with pytest.raises(ValueError, match="base_min_images = 1 training images, got 4"):
        split_classes(every, *load_parts(every.data), 0)
