"""The command line of the imprinting study, and its config files."""

import re
import runpy
from pathlib import Path

import pytest

from experiments.imprinting.__main__ import main
from experiments.imprinting.config import Config

ROOT = Path(__file__).resolve().parents[2]
# Studies of the paper's own data, whose training has no warm-up and no weight decay.
PAPERS = ("cub_imprinting", "inaturalist_imprinting")


@pytest.mark.usefixtures("small_glyphs")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shots", "1", "40"], "n = 40 examples of class .*, got 15"),
        (["--data.base", "16"], "1 to 15 base classes out of 16 classes, got 16"),
        (["--tuned.seeds", "7"], r"tuned.seeds among seeds = .*, got \[7\]"),
        (["--shots", "1", "1"], r"different values for shots, got \[1, 1\]"),
        (["--seeds"], r"one or more different values for seeds, got \[\]"),
        (["--shots", "0"], r"shots of at least 1, got \[0\]"),
        (["--dims", "64"], r"dims other than dim = 64, got \[64\]"),
        (["--losses", "softmax"], "losses other than 'softmax'"),
        (["--side-shots", "2"], r"dims with side_shots = \[2\], got none"),
        (["--scale", "0"], "scale to be a finite number above 0, got 0.0"),
        (["--epochs", "0"], "epochs of at least 1, got 0"),
        (["--augment.side", "15"], "crop side from 1 to 14 for images of 14x14, got"),
        (["--data.min-images", "99"], "data.min_images = 99 training images, got at"),
        (
            ["--data.base-min-images", "9"],
            "data.base_min_images = 9 training images, got 16 of 16",
        ),
        (["--losses", "nca", "--group", "5"], "batch to be a multiple of group = 5"),
        (
            ["--batch", "900", "--group", "2"],
            "batch of 900 examples of base classes, got 180",
        ),
        (["--optim.warmup", "1"], r"optim.warmup in \[0, 1\), got 1.0"),
        (["--finetune.decay", "0"], r"finetune.decay in \(0, 1\], got 0.0"),
        (["--losses", "lifted", "--group", "16"], "images, got 15 in class"),
        (
            ["--losses", "nca", "--accumulate", "2"],
            r"accumulate = 1 for the losses \['nca'\].*got 2",
        ),
        (["--accumulate", "7"], "accumulate to divide batch = 128, got 7"),
        (["--net.name", "Conv5"], "Conv5"),
        (["--net.name", "linear"], "'linear' is now called Flatten"),
        (["--net.dropout", "1"], r"net.dropout in \[0, 1\), got 1.0"),
        (["--mesh.data", "99"], "expected from 1 to .* devices, .*, got 99"),
        (["--losses", "nca"], "way = 32 classes, got 12 in the base classes, for batc"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    config = tmp_path / "config.py"
    config.write_text(
        "from experiments.imprinting.config import *\n"
        "data, few = Data('glyphs', classes=16, base=12, side=14), Rows((1,), (0,))\n"
        "rows = {'tuned': few, 'transfer': few, 'joint': few, 'shots': (1, 5)}\n"
        "config = Config(data, Network('Flatten'), **rows)\n"
    )
    workdir = tmp_path / "run"
    line = ["--config", str(config), "--workdir", str(workdir), *options]
    with pytest.raises(SystemExit) as e:
        main(line)
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert e.value.code == 2 and shown.startswith("error: "), shown
    assert re.search(message, shown), shown
    # Nothing was trained before.
    assert not [*workdir.glob("members/*/metrics.jsonl")]


def test_an_unknown_option_is_told_with_the_nearest_spelling(tmp_path, capsys):
    config = ROOT / "configs" / "glyphs_imprinting.py"
    with pytest.raises(SystemExit) as e:
        main(["--config", str(config), "--workdir", str(tmp_path), "--epoch", "3"])
    assert e.value.code == 2 and "--epochs" in capsys.readouterr().err


def test_an_option_of_running_is_refused_with_what_is_allowed(tmp_path, capsys):
    config = ROOT / "configs" / "glyphs_imprinting.py"
    line = ["--config", str(config), "--workdir", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as e:
        main([*line, "--run.log-every", "0"])
    shown = capsys.readouterr().err
    assert e.value.code == 2 and "log_every of at least 1, got 0" in shown
    assert "Traceback" not in shown


def test_help_lists_the_options(capsys):
    with pytest.raises(SystemExit) as e:
        main(["--help"])
    shown = capsys.readouterr().out
    assert e.value.code == 0
    for option in ("--data.allow-fewer", "--tuned.shots", "--run.limit", "--config"):
        assert option in shown
    assert "Augmented copies of each example" in shown


@pytest.mark.parametrize("name", PAPERS)
def test_studies_of_the_papers_data_have_no_warm_up_and_no_decay(name):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["config"]
    assert isinstance(config, Config)
    for optim in (config.optim, config.finetune):
        assert optim.warmup == optim.weight_decay == 0
        assert optim.name == "rmsprop" and optim.schedule == "staircase"
        assert (optim.decay, optim.decay_every) == (0.94, 4)
    assert config.finetune.head_rate == 10
    assert config.data.allow_fewer == (name == "inaturalist_imprinting")
