"""A run of prototypes that goes on from a shorter one in its folder."""

import dataclasses

import jax
import numpy as np
import pytest

import jaxfer
from experiments.inputs import Network
from experiments.options import Mesh
from experiments.prototypes import measure, train
from experiments.prototypes import run as prototypes
from experiments.prototypes.config import Config, Data, Evaluation, Task, Validation
from jaxfer.config import to_json
from jaxfer.models import Options
from jaxfer.optim import Optim
from jaxfer.runlog import read_json, read_metrics, read_result

pytestmark = pytest.mark.usefixtures("small_glyphs")
# The rate changes twice: once before and once after the end of the short run.
SHORT = Config(
    data=Data(name="glyphs", train="train", test="val"),
    net=Network("Conv4", width=4),
    task=Task(way=5, shot=1, query=2),
    test=Evaluation(ways=(5,), shots=(1,), query=3, episodes=4),
    optim=Optim("adam", 1e-3, schedule="staircase", decay=0.5, decay_every=3),
    episodes=4,
    mesh=Mesh(1),
    run=Options(save_every=3, log_every=2, progress=False, tensorboard=False),
    figures=False,
)
LONG = dataclasses.replace(SHORT, episodes=8)
EXTEND = dataclasses.replace(LONG, extend=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, small_glyphs):
    """The longer run without a break."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, prototypes.run(LONG, workdir)


@pytest.fixture
def short(tmp_path):
    prototypes.run(SHORT, tmp_path)
    return tmp_path


def _assert_same(workdir, whole):
    other, expected = whole
    model, its = (jaxfer.load_model(folder) for folder in (workdir, other))
    jax.tree.map(
        np.testing.assert_array_equal,
        (model.params, model.state),
        (its.params, its.state),
    )
    with (
        np.load(workdir / "episodes.npz") as one,
        np.load(other / "episodes.npz") as two,
    ):
        assert set(one) == set(two)
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    lines = [
        [{**line, "wall_s": 0} for line in read_metrics(folder)]
        for folder in (workdir, other)
    ]
    assert lines[0] == lines[1] and [x["step"] for x in lines[0]] == [2, 4, 6, 8]
    result = read_result(workdir)
    for name in ("metrics", "phases", "classes", "dataset_fingerprint"):
        assert result[name] == expected[name]
    assert result["phases"]["train"]["steps"] == result["config"]["episodes"] == 8
    assert read_json(workdir / "config.json") == result["config"]


def test_more_episodes_go_on_from_a_finished_run_bit_for_bit(short, whole, capsys):
    refused = r"holds a shorter run: episodes = 4 \(got 8\); add --extend to go on"
    before = {p: p.read_bytes() for p in short.rglob("*") if p.is_file()}
    with pytest.raises(ValueError, match=refused):
        prototypes.run(LONG, short)
    assert before == {p: p.read_bytes() for p in short.rglob("*") if p.is_file()}
    prototypes.run(EXTEND, short)
    assert "train: going on from step 4 of 8" in capsys.readouterr().out
    _assert_same(short, whole)
    # The word is no part of what is run, and a run does not become shorter.
    assert prototypes.run(LONG, short) == prototypes.run(EXTEND, short)
    assert "is finished" in capsys.readouterr().out
    shorter = dataclasses.replace(SHORT, extend=True)
    with pytest.raises(ValueError, match=r"episodes = 8 \(got 4\)"):
        prototypes.run(shorter, short)


def test_a_longer_run_that_dies_keeps_the_result_until_it_has_trained(
    short, whole, monkeypatch
):
    """First it dies in training, then in the test."""
    kept = read_result(short)
    real = train.train

    def dying(config, *rest):
        real(dataclasses.replace(config, episodes=6), *rest)
        raise MemoryError("killed")

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(train, "train", dying)
        prototypes.run(EXTEND, short)
    assert prototypes.run(SHORT, short) == kept
    assert read_json(short / "config.json") == to_json(SHORT)
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(measure, "evaluate", None)
        prototypes.run(EXTEND, short)
    assert not (short / "result.json").exists()
    # From here on the folder is that of the longer run.
    with pytest.raises(ValueError, match=r"episodes = 8 \(got 4\)"):
        prototypes.run(SHORT, short)
    prototypes.run(LONG, short)
    _assert_same(short, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"optim": Optim(schedule="cosine")},
            "the rates of optim.schedule = 'cosine' with optim.warmup = 0.0 depend on",
        ),
        (
            {"optim": Optim(warmup=0.5)},
            "optim.warmup = 0.5 depend on .*: choose another --work",
        ),
        (
            {
                "data": dataclasses.replace(
                    SHORT.data, val="val", retrain="trainval", test="test"
                ),
                "val": Validation(every=2, episodes=1, way=2, query=2),
            },
            "training on data.retrain = 'trainval' replaced its checkpoints",
        ),
    ],
)
def test_what_cannot_go_on_is_refused_before_anything_changes(
    tmp_path, change, message
):
    with prototypes.workdirs.open_workdir(
        tmp_path, dataclasses.replace(SHORT, **change)
    ):
        pass
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=message):
        prototypes.run(dataclasses.replace(EXTEND, **change), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_longer_run_has_to_be_the_same_otherwise(short):
    other = dataclasses.replace(EXTEND, seed=1)
    message = r"episodes = 4 \(got 8\), seed = 0 \(got 1\); choose another"
    with pytest.raises(ValueError, match=message):
        prototypes.run(other, short)


@pytest.mark.slow
def test_validation_goes_on_too(tmp_path):
    """The best state of the longer run may be one of the shorter."""
    validated = dataclasses.replace(
        SHORT,
        data=dataclasses.replace(SHORT.data, val="val"),
        val=Validation(every=2, episodes=4, way=3, query=2, patience=5),
    )
    prototypes.run(validated, tmp_path / "parts")
    longer = dataclasses.replace(validated, episodes=8, extend=True)
    one, other = (prototypes.run(longer, tmp_path / x) for x in ("parts", "whole"))
    assert one["phases"] == other["phases"]
    assert one["metrics"] == other["metrics"]
