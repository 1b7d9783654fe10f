"""Every experiment on one device, on eight, and in two processes: equal results.

They are equal up to rounding where sums are taken in another order.
"""

import re
from typing import NamedTuple

import jax
import numpy as np
import pytest

import jaxfer
from jaxfer.runlog import read_json, read_metrics
from tests.experiments.test_zero_shot import write_facts
from tests.launched import launch

PROTOTYPES = """
--config configs/quickstart.py --net.width 4 --task.way 5 --episodes-per-step 8
--episodes 24 --test.ways 5 --test.shots 1 --test.episodes 16
"""
STUDIES = {
    "layer_transfer": """
--config configs/glyphs_layer_transfer.py --data.classes 16 --net.width 4 --net.dense 16
--batch 16 --epochs 2 --layers 3 --similar.splits 0 --similar.treatments base BnB AnB
--dissimilar.splits --untrained.splits
""",
    "imprinting": """
--config configs/glyphs_imprinting.py --data.classes 16 --data.base 12 --net.width 4
--net.dense 16 --batch 24 --epochs 2 --shots 1 --seeds 0 1 --tuned.shots 1
--tuned.seeds 0 --finetune-epochs 1 --transfer.shots --joint.shots --dims --side-shots
--losses
""",
    "zero_shot": """
--config configs/cub_zero_shot_simulated.py --data.class-shares 0.5 0.25 0.25
--attributes.source table --simulated.noise 0.3 --simulated.per-class 12
--simulated.dim 8 --seeds 0 1 --way 8 --query 3 --dim 8 --episodes 40 --val.every 20
--val.episodes 4 --shots 1 --test-episodes 5
""",
}
MEMBERS = {"layer_transfer": 6, "imprinting": 6, "zero_shot": 2}
# Two members of the imprinting study only measure.
MODELS = MEMBERS | {"imprinting": 4}


class Layout(NamedTuple):
    """Processes, devices of each, and the options of a study."""

    processes: int
    devices: int
    data: str = ""
    model: str = ""


LAYOUTS = {
    "8 devices": Layout(1, 8, "--mesh.data -1"),
    "4 x 2 devices": Layout(1, 8, "--mesh.data 4", "--mesh.model 2"),
    "2 processes": Layout(2, 1),
    "2 x 2 processes": Layout(2, 2, "--mesh.data 2"),
}
SHOWN = ("--run.log-every", "1", "--run.no-tensorboard", "--no-figures")


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """Runs an experiment on a layout once, and returns its folder and its output."""
    found = {}
    facts = write_facts(tmp_path_factory.mktemp("facts") / "birds.csv")

    def run(name, processes=1, devices=1, more=""):
        where = name, processes, devices, more
        if where not in found:
            workdir = tmp_path_factory.mktemp(name)
            options = STUDIES.get(name, PROTOTYPES).split()
            if name == "zero_shot":
                options += ["--attributes.path", facts]
            ended = launch(
                *("-m", f"experiments.{name}", *options, *more.split(), *SHOWN),
                *("--workdir", str(workdir), "--data.dir", str(data_dir)),
                processes=processes,
                devices=devices,
            )
            assert ended.returncode == 0, ended.stdout
            found[where] = workdir, ended.stdout
        return found[where]

    return run


def _models(workdir):
    paths = sorted(workdir.rglob("model.safetensors"))
    return {p.parent.name: jaxfer.load_model(p.parent) for p in paths}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prototypes(run, layout):
    """Losses agree for the first steps; later, Adam makes rounding larger."""
    processes, devices, data, model = LAYOUTS[layout]
    more = f"{data} {model}" if model else ""
    folders = run("prototypes")[0], run("prototypes", processes, devices, more)[0]
    losses = [[x["train/loss"] for x in read_metrics(folder)] for folder in folders]
    assert len(losses[0]) == 3
    np.testing.assert_allclose(*losses, rtol=1e-4)
    one, other = (np.load(folder / "episodes.npz") for folder in folders)
    assert one.files == other.files
    for name in one.files:
        differences = abs(one[name] - other[name])
        assert differences.mean() < (1e-6 if "pixels" in name else 5), name
    result = read_json(folders[1] / "result.json")
    assert result["processes"] == processes
    assert len(result["devices"]) == processes * devices


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        pytest.param(
            name, layout, marks=[pytest.mark.slow] if layout != "2 processes" else []
        )
        for name in STUDIES
        for layout in LAYOUTS
    ],
)
def test_studies(run, name, layout):
    """Processes take members; devices take members of a population, or a batch."""
    processes, devices, data, model = LAYOUTS[layout]
    # A zero-shot study has no head whose rows could be shared.
    split = f"{model} --population 1" if model and name != "zero_shot" else ""
    found = run(name), run(name, processes, devices, f"{data} {split}".strip())
    folders = [workdir for workdir, _ in found]
    trained = re.findall(r"^\[(\d)\] \[\d/\d\] ", found[1][1], re.MULTILINE)
    # Each member is trained once, by one of the processes.
    assert len(trained) == MEMBERS[name] and {*trained} <= {*"01"[:processes]}
    same = layout == "2 processes" or name == "zero_shot"
    one, other = (read_json(folder / "result.json") for folder in folders)
    assert one["metrics"].keys() == other["metrics"].keys()
    for metric, value in one["metrics"].items():
        assert value["mean"] == pytest.approx(
            other["metrics"][metric]["mean"], abs=0 if same else 3
        ), metric
    for part in ("metrics", "rows") if same else ():
        assert one.get(part) == other.get(part)
    one, other = map(_models, folders)
    assert one.keys() == other.keys() and len(one) == MODELS[name]
    rtol = 0 if same else 1e-3
    for member in one:
        trees = [
            (x.params, x.state, x.head and x.head.weight)
            for x in (one[member], other[member])
        ]
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(
                x, y, rtol=rtol, atol=rtol * abs(x).max()
            ),
            *trees,
        )
