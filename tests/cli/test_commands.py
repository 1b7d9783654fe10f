"""The commands on a small model and a small folder of photographs."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from jaxfer import FewShotClassifier
from jaxfer.cli.main import main
from jaxfer.data import load_bank

pytest.importorskip("PIL")


def run(*words):
    assert main([*map(str, words)]) == 0


def refused(capsys, *words):
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, words)])
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_fit_says_how_good_it_is(model, photographs, parted, tmp_path, capsys):
    to, bank = tmp_path / "a.safetensors", tmp_path / "a.npz"
    run("fit", photographs, "--model", model, "--to", to, "--bank", bank)
    shown = capsys.readouterr().out
    assert "3 classes of 12 to 12 pictures" in shown
    assert "36 pictures, each left out of the fit" in shown
    known = load_bank(bank)
    names = np.array(known.class_names)[known.labels]
    right = []
    for i in range(36):
        rest = np.arange(36) != i
        other = FewShotClassifier(head="prototype").fit(
            known.embeddings[rest], names[rest]
        )
        right.append(other.predict(known.embeddings[i : i + 1])[0] == names[i])
    how = ("--head", "prototype", "--bank", bank)
    run("fit", photographs, "--model", model, "--to", to, *how)
    assert f"accuracy {100 * np.mean(right):.2f}" in capsys.readouterr().out
    run("fit", parted, "--model", model, "--to", to)
    shown = capsys.readouterr().out
    assert "3 classes of 6 to 6 pictures" in shown and "18 test pictures" in shown


def test_predict_prints_a_line_per_picture(fitted, photographs, capsys):
    run("predict", fitted, photographs / "kite", photographs / "wren" / "wren00.jpg")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13 and lines[-1].endswith("wren00.jpg")
    assert sum(line.startswith("kite") for line in lines[:12]) > 6


def test_predict_writes_csv_json_and_a_page(fitted, photographs, tmp_path, capsys):
    table, page = tmp_path / "a.csv", tmp_path / "a.html"
    files = sorted((photographs / "robin").iterdir())
    run("predict", fitted, *files, "--csv", table)
    run("predict", fitted, *files, "--page", page, "--support", photographs)
    assert "a.html: 12 pictures" in capsys.readouterr().out
    run("predict", fitted, *files, "--json")
    rows = json.loads(capsys.readouterr().out)
    expected = FewShotClassifier.load(fitted)
    shares = expected.predict_proba(files)
    labels = expected.predict(files).tolist()
    with table.open() as file:
        written = [*csv.DictReader(file)]
    for i, (row, line) in enumerate(zip(rows, written, strict=True)):
        assert row["label"] == line["label"] == labels[i]
        assert row["probability"] == pytest.approx(shares[i].max(), abs=1e-3)
        assert float(line["robin"]) == row["probabilities"]["robin"]
    text = page.read_text()
    assert text.count("data:image/jpeg") == 24, "each picture and its example"
    assert "<script" not in text and "robin00.jpg" in text


def test_unknown_pictures_are_marked(fitted, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    files = []
    for i, colour in enumerate(("black", "white")):
        files.append(tmp_path / f"{i}.png")
        image.new("RGB", (20, 20), colour).save(files[-1])
    run("predict", fitted, *files, "--page", tmp_path / "a.html")
    assert "class=unknown" in (tmp_path / "a.html").read_text()


def test_names_of_files_and_classes_are_escaped(model, photographs, tmp_path):
    folder = tmp_path / "odd"
    for name in ("<b>", "a&b"):
        (folder / name).mkdir(parents=True)
        for i, file in enumerate(sorted((photographs / "kite").iterdir())[:2]):
            (folder / name / f"<i>{i}.jpg").write_bytes(file.read_bytes())
    to, page = tmp_path / "a.safetensors", tmp_path / "a.html"
    run("fit", folder, "--model", model, "--to", to, "--head", "nearest")
    run("predict", to, folder, "--page", page, "--support", folder)
    text = page.read_text()
    assert "<b>" not in text and "<i>" not in text and "&lt;b&gt;" in text


def test_info_knows_all_files(fitted, model, photographs, tmp_path, capsys):
    run("info", fitted)
    shown = capsys.readouterr().out
    assert "classifier" in shown and "kite, robin, wren" in shown
    assert "each left out of the fit" in shown
    run("info", model, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "model" and facts["layers"] == "conv1, conv2, conv3, conv4"
    bank = tmp_path / "bank.safetensors"
    run("embed", photographs, "--model", model, "--to", bank)
    run("info", bank, "--json")
    facts = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert facts["kind"] == "feature bank" and facts["embeddings"] == 36
    for path, message in (
        (tmp_path / "none.npz", "got nothing at"),
        (tmp_path, "expected a run's folder with config.json"),
        (photographs / "kite" / "kite00.jpg", "expected a .safetensors, a .npz or"),
    ):
        assert message in refused(capsys, "info", path)


def test_export_writes_a_folder(fitted, tmp_path, capsys):
    pytest.importorskip("flatbuffers")
    to = tmp_path / "out"
    assert "head prototype, imprint" in refused(
        capsys, "export", _nearest(fitted, tmp_path), "--to", to
    )
    run("export", fitted, "--to", to)
    assert "classify.stablehlo" in capsys.readouterr().out
    card = (to / "README.md").read_text()
    assert "kite, robin, wren" in card and "each left out" in card


def _nearest(fitted, folder):
    classifier = FewShotClassifier.load(fitted).set_params(head="nearest")
    z = np.eye(4)
    return classifier.fit(z, [0, 0, 1, 1]).save(folder / "nearest.safetensors")


def test_nets_lists_sizes_and_weights(capsys):
    run("nets", "Conv4", "ResNet12", "--side", 84, "--json")
    found = json.loads(capsys.readouterr().out)
    conv, resnet = found["nets"]
    # 2 x (84^2 x 27 + 42^2 x 576 + 21^2 x 576 + 10^2 x 576) x 64 for the convolutions.
    products = 2 * 64 * (84**2 * 27 + (42**2 + 21**2 + 10**2) * 576) / 1e9
    assert conv["GFLOPs"] == pytest.approx(products, rel=0.1)
    assert (conv["layers"], conv["dim"], conv["parameters"]) == (4, 1600, 112_832)
    assert resnet["parameters"] == 12_424_320
    assert found["weights"][0]["name"] == "efficientnet_lite0"
    run("nets", "Flatten")
    assert "pip install" in (shown := capsys.readouterr().out) or "installed" in shown


def test_wrong_input_is_one_clear_line(fitted, model, photographs, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("no picture")
    to = tmp_path / "a.safetensors"
    for words, message in (
        (("predict", fitted, tmp_path / "none.jpg"), "got no file at"),
        (("predict", fitted, tmp_path / "text.jpg"), "text.jpg"),
        (("predict", model, photographs), "it is no classifier of FewShot"),
        (("fit", tmp_path / "no", "--to", to), "which does not exist"),
        (("fit", photographs, "--model", "resnet51", "--to", to), "got 'resnet51'"),
        (
            ("fit", photographs / "kite", "--model", model, "--to", to),
            "pictures without classes",
        ),
        (("fit", photographs, "--model", model, "--to", "a.pt"), "in .safetensors"),
        (("embed", photographs, "--model", model, "--to", "a.txt"), "to end in .npz"),
        (("nets", "Conv5"), "expected a network of"),
    ):
        assert message in refused(capsys, *words), words


def test_the_help_is_there_and_loads_no_flax():
    code = (
        "import sys; from jaxfer.cli.main import make_parser\n"
        "parser = make_parser()\n"
        "print(parser.format_help())\n"
        "assert 'flax' not in sys.modules and 'orbax' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for name in ("fit", "predict", "embed", "export", "info", "nets", "prepare"):
        assert f"\n    {name} " in done.stdout
