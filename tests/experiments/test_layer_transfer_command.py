"""What the layer-transfer study refuses, on one line."""

import re

import pytest

from experiments import layer_transfer

pytestmark = pytest.mark.usefixtures("small_glyphs")
CONFIG = "configs/glyphs_layer_transfer.py"


def _run(tmp_path, *options):
    argv = ["--config", CONFIG, "--workdir", str(tmp_path / "run"), *options]
    return layer_transfer.main(argv)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layers", "1", "8"], "n = 8 for .*, needed at most the 7 layers .*'fc7'"),
        (["--layers", "1", "1"], r"layers \[1, 1\], needed different values of n"),
        (["--similar.treatments", "base", "CnB"], "treatment 'CnB', needed one of"),
        (["--similar.treatments", "AnB"], "no 'base' in similar.treatments, needed"),
        (["--untrained.treatments", "base", "AnB"], "'AnB'.* by 'whole', needed halv"),
        (
            ["--dissimilar.splits", "0", "1"],
            r"dissimilar.splits = \[0, 1\] by 'family'",
        ),
        (["--dissimilar.by", "animals"], "found 0 of .* rule for cifar100"),
        (
            ["--dissimilar.by", "nowhere/half"],
            "no nowhere/halfA.txt, needed 'random', one",
        ),
        (["--data.side", "9"], "28x28 images in glyphs .* side 9, needed a divisor"),
        (["--data.limit", "0"], "GB of pixels .* needed at most data.limit = 0"),
        (["--batch", "100000"], "examples of similar-0A.*, needed at least a batch"),
        (["--augment.side", "20"], "augment.side = 20, needed none: networks of lay"),
        (["--outputs", "3"], "outputs = 3, needed at least the 100 classes"),
        (["--epochs", "0"], "found epochs = 0, needed at least 1"),
        (["--population", "-1"], "found population = -1, needed at least 1"),
        (["--data.classes", "-5"], "found data.classes = -5, needed at least 1"),
        (["--layers", "-1", "3"], "found n = -1 and keep = 0 of BnB, needed n of"),
        (["--net.dropout", "1"], "net.dropout = 1.0, needed 0 up to, not with, 1"),
        (
            ["--optim.warmup", "99"],
            r"optim.warmup = 99.0, needed 0 to less than the \d+ epochs",
        ),
        (["--data.name", "cifar10"], "data set 'cifar10'.* mean 'cifar100'"),
    ],
    ids=lambda x: x[0] if isinstance(x, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as e:
        _run(tmp_path, *options)
    shown = capsys.readouterr().err.strip().splitlines()[-1]
    assert e.value.code == 2 and shown.startswith("error: ")
    assert re.search(message, shown), shown


def test_lists_that_overlap_are_refused(tmp_path, capsys):
    (tmp_path / "xA.txt").write_text("\n".join(map(str, range(101))))
    (tmp_path / "xB.txt").write_text("\n".join(map(str, range(100, 200))))
    with pytest.raises(SystemExit):
        _run(tmp_path, "--similar.by", str(tmp_path / "x"), "--similar.splits", "0")
    assert "overlap: 1 classes are in both" in capsys.readouterr().err


def test_a_study_of_another_config_is_refused(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text('{"epochs": 3}')
    with pytest.raises(SystemExit):
        _run(tmp_path)
    assert "epochs (there 3, here" in capsys.readouterr().err
