"""The command line of layer transfer: what it refuses, on one line."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.imprinting import config as imprinting
from experiments.layer_transfer import config as layer_transfer
from experiments.layer_transfer.__main__ import main
from experiments.studies import run_study
from jaxfer.workdir import join_workdir

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("small_glyphs")
CONFIG = "configs/glyphs_layer_transfer.py"
# Quick to refuse: no network of the study is built for 200 classes.
FEW = ("--data.classes", "20", "--batch", "20")


def _refused(tmp_path, capsys, *options):
    argv = ["--config", str(ROOT / CONFIG), "--workdir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as e:
        main([*argv, *FEW, *options])
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert e.value.code == 2 and errors == lines[-1:], lines
    # Nothing is left behind that a corrected command would stumble over.
    assert not (tmp_path / "run" / "config.json").exists()
    return errors[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--dissimilar.by animals", "choose another --dissimilar.by, or skip the grid"),
        (
            "--layers 1 8",
            r"to be at most 7, the number of layers of the net, got \[8\]",
        ),
        ("--layers 1 1", r"different values for layers, got \[1, 1\]"),
        ("--layers -1 3", r"layers of at least 1, got \[-1, 3\]"),
        ("--layers 0 3", r"layers of at least 1, got \[0, 3\]"),
        ("--similar.treatments base CnB", "expected a treatment among .* got 'CnB'"),
        ("--similar.treatments AnB", "expected 'base' among similar.treatments"),
        ("--similar.treatments base base", "different values for similar.treatments"),
        ("--similar.treatments base AnB+-thaw", r"got AnB\+-thaw, which is not frozen"),
        (
            "--layers 7 --similar.treatments base AnB-keep1",
            r"got \['AnB-keep1'\], which copy too many layers",
        ),
        ("--untrained.treatments base AnB", "by = 'whole', got .'AnB'.: there is no"),
        ("--dissimilar.splits 0 1", r"one split for dissimilar.by = 'family', got"),
        ("--dissimilar.by animals", "animals"),
        ("--dissimilar.by nowhere/half", "nowhere/halfA.txt"),
        ("--similar.seeds 0 0", r"different values for similar.seeds, got \[0, 0\]"),
        ("--data.side 9", "side that divides the 28x28 images of glyphs, got 9"),
        ("--data.side 0", "data.side of at least 1, got 0"),
        ("--data.classes -5", "data.classes of at least 1, got -5"),
        ("--data.min_images 99", "data.min_images = 99 training images, got at most"),
        ("--data.name cifar10", "'cifar10'.*cifar100"),
        ("--batch 100000", "at least one batch of 100000 examples, got"),
        ("--batch 20 --accumulate 3", "accumulate to divide batch = 20, got 3"),
        ("--batch 0", "batch of at least 1, got 0"),
        ("--augment.side 20", "no augment.side, got 20"),
        ("--augment.shift -1", "augment.shift of at least 0, got -1"),
        (
            "--outputs 3",
            "outputs of at least the 10 classes of similar-0A-.* got 3",
        ),
        ("--epochs 0", "epochs of at least 1, got 0"),
        ("--epochs many", "many"),
        ("--population -1", "population of at least 1, got -1"),
        ("--mesh.data 99", "99"),
        ("--mesh.data 0", "mesh.data of at least 1, or -1, got 0"),
        ("--net.dropout 1", r"net.dropout in \[0, 1\), got 1"),
        ("--net.width 0", "net.width of at least 1, got 0"),
        ("--net.name eight", "'eight' is now called AlexNetSmall"),
        ("--net.name eight_batch_norm", "now called AlexNetSmall with --net.normalize"),
        ("--net.name resnet20", "'resnet20' is now called ResNet20"),
        ("--net.name linear", "'linear' is now called Flatten"),
        ("--net.name VGG", "expected a network of .*'AlexNetSmall'.* got 'VGG'"),
        ("--net.name nowhere:Net", "'nowhere:Net' cannot be made: No module named"),
        ("--net.name Conv4 --net.dense 8", "Conv4 has no option"),
        ("--optim.warmup 99", "warmup"),
        ("--optim.learning_rate -1", "learning.rate"),
        ("--optim.name sdg", "sdg"),
        ("--run.steps_per_call 0", "steps_per_call of at least 1, got 0"),
        ("--run.limit -1", "run.limit to be a finite number of at least 0, got -1"),
        ("--epoch 3", "--epoch.*--epochs"),
        ("--steps-per-call 3", "--run.steps-per-call"),
    ],
    ids=lambda x: x if x.startswith("--") else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    shown = _refused(tmp_path, capsys, *options.split())
    assert re.search(message, shown), shown


def test_every_grid_may_be_left_out_but_one(tmp_path, capsys):
    # An option without values empties a grid.
    options = ("--similar.splits", "--dissimilar.splits", "--untrained.splits")
    assert "splits in at least one grid" in _refused(tmp_path, capsys, *options)


def test_lists_that_overlap_are_refused(tmp_path, capsys):
    (tmp_path / "xA.txt").write_text("\n".join(map(str, range(11))))
    (tmp_path / "xB.txt").write_text("\n".join(map(str, range(10, 20))))
    by = ("--similar.by", str(tmp_path / "x"), "--similar.splits", "0")
    assert "overlap" in _refused(tmp_path, capsys, *by)


def test_a_folder_of_another_study_is_refused(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "config.json"
    path.write_text('{"epochs": 3}')
    with pytest.raises(SystemExit) as e:
        main(["--config", str(ROOT / CONFIG), "--workdir", str(tmp_path / "run")])
    assert e.value.code == 2
    assert "epochs = 3 (got 15)" in capsys.readouterr().err
    assert path.read_text() == '{"epochs": 3}'


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "run").write_text("a file, not a folder")
    with pytest.raises(SystemExit) as e:
        main(
            ["--config", str(ROOT / CONFIG), "--workdir", str(tmp_path / "run" / "in")]
            + [*FEW]
        )
    assert e.value.code == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_config_of_another_experiment_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        main(["--config", str(ROOT / "configs" / "quickstart.py")])
    assert e.value.code == 2
    assert "experiments.layer_transfer.config.Config" in capsys.readouterr().err


def test_help_works_without_a_config():
    command = [sys.executable, "-m", "experiments.layer_transfer", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = re.sub(r"[\s│]+", " ", done.stdout)
    for word in ("--similar.splits", "--run.save-every", "Networks trained at once"):
        assert word in shown


@pytest.mark.parametrize(
    ("config", "check", "lengths"),
    [
        (layer_transfer.Config(), layer_transfer.check, ["epochs"]),
        (
            imprinting.Config(),
            imprinting.check,
            ["epochs", "finetune_epochs", "transfer_steps"],
        ),
    ],
    ids=["layer_transfer", "imprinting"],
)
def test_a_study_is_not_trained_for_longer(tmp_path, config, check, lengths):
    join_workdir(tmp_path, config)
    for name in lengths:
        there = getattr(config, name)
        longer = dataclasses.replace(config, **{name: there + 1})
        message = rf"{name} = {there} \(got {there + 1}\); networks of a study"
        with pytest.raises(ValueError, match=message):
            run_study(longer, tmp_path, check=check, trainer=None, result=None)
