"""The imprinting study on photographs: on the device, or read batch by batch."""

import dataclasses

import numpy as np
import pytest

from experiments import imprinting, imprinting_step
from experiments.imprinting_config import Config, Data, Optim, Rows
from jaxfer import nets
from jaxfer.data import Crop
from jaxfer.runlog import read_json

pytest.importorskip("grain")

CONFIG = Config(
    data=Data("folder", base=2, side=16, pixels="range", train="trainval"),
    augment=Crop(mirror=True, side=12),
    copies=2,
    dim=4,
    batch=8,
    epochs=3,
    optim=Optim(learning_rate=0.1),
    finetune=Optim("rmsprop", 0.01, head_rate=10.0, schedule="stairs"),
    finetune_epochs=2,
    transfer_steps=4,
    shots=(1, 3),
    seeds=(0,),
    tuned=Rows((3,), (0,)),
    transfer=Rows((1,), (0,)),
    joint=Rows((), ()),
    losses=("nca",),
    group=4,
    save_every=2,
    log_every=1,
    figures=False,
)


@pytest.fixture(scope="module", autouse=True)
def linear_net(forgotten):
    """What is tested here is not the network, so one that compiles at once."""
    forgotten.setattr(imprinting_step, "make_net", lambda net, dim: nets.linear(dim))


def _config(photographs, **data):
    data = dataclasses.replace(CONFIG.data, dir=str(photographs), **data)
    return dataclasses.replace(CONFIG, data=data)


@pytest.fixture(scope="module")
def resident(photographs, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("resident")
    return imprinting.run(_config(photographs), workdir), workdir


def _same_members(one, other):
    names = sorted(path.name for path in (one / "members").glob("*.json"))
    assert len(names) == 6
    for name in names:
        ours, theirs = (read_json(folder / "members" / name) for folder in (one, other))
        assert ours["rows"] == theirs["rows"], name
        assert ours["epochs"] == theirs["epochs"], name


def test_streamed_is_what_it_is_on_the_device(resident, photographs, tmp_path, capsys):
    result, workdir = resident
    config = _config(photographs, limit=0.0)
    again = imprinting.run(config, tmp_path)
    assert "images are streamed: " in capsys.readouterr().out
    assert again["metrics"] == result["metrics"]
    _same_members(tmp_path, workdir)
    name = "members/seed0-base-softmax-d4.npz"
    one, other = np.load(workdir / name), np.load(tmp_path / name)
    assert one["gallery/images"].shape[1:] == (16, 16, 3)
    for key in one.files:
        np.testing.assert_array_equal(one[key], other[key])


def test_a_streamed_study_goes_on_where_it_was_killed(
    resident, photographs, tmp_path, kill_imprinting, capsys
):
    config = _config(photographs, limit=0.0)
    kill_imprinting(config, tmp_path, call=6)
    capsys.readouterr()
    imprinting.run(config, tmp_path)
    # 5 of the 6 steps of its first network were taken, and saved at every other.
    assert "train: going on from step 4 of 6" in capsys.readouterr().out
    _same_members(tmp_path, resident[1])


def test_pixels_are_scaled_to_one(resident):
    net = np.load(resident[1] / "members" / "seed0-base-softmax-d4.npz")
    ends = (np.array([0.0, 255.0]) - net["centre"].ravel()) * net["scale"]
    np.testing.assert_allclose(ends, [-1, 1], rtol=1e-6)


def test_images_that_are_streamed_have_no_mean_and_no_border(photographs, tmp_path):
    with pytest.raises(ValueError, match="data.pixels = 'moments', needed 'range'"):
        imprinting.run(_config(photographs, limit=0.0, pixels="moments"), tmp_path)
    config = dataclasses.replace(
        _config(photographs, limit=0.0), augment=Crop(shift=1, side=12)
    )
    with pytest.raises(ValueError, match="augment.shift = 1, needed 0 for images that"):
        imprinting.run(config, tmp_path)


def test_classes_may_be_base_by_their_number_of_images(photographs, tmp_path):
    parts = (photographs / "robin", photographs / "kite", photographs / "wren")
    for own, n in zip(parts, (5, 9, 12), strict=True):
        (tmp_path / "some" / own.name).mkdir(parents=True)
        for file in sorted(own.iterdir())[:n]:
            (tmp_path / "some" / own.name / file.name).write_bytes(file.read_bytes())
    for name in ("owl", "crow"):
        (tmp_path / "some" / name).mkdir()
        for file in sorted(parts[0].iterdir())[: 2 if name == "owl" else 5]:
            (tmp_path / "some" / name / file.name).write_bytes(file.read_bytes())
    few = dataclasses.replace(
        # Of the mean image, which streamed ones have not.
        _config(tmp_path / "some", base_min_images=8, min_images=3, pixels="moments"),
        losses=(),
        tuned=Rows((), ()),
        transfer=Rows((), ()),
    )
    result = imprinting.run(few, tmp_path / "run")
    # Of five classes owls are too few; of the others two have eight to train on.
    assert result["base"] == 2
    assert {name.split("/")[0] for name in result["metrics"]} == {"2+2"}
