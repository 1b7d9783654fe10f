import jax
import numpy as np
import pytest

from jaxfer import init_model, save_model
from jaxfer.nets import Conv4
from jaxfer.runlog import read_json
from tools import photo_results


def test_every_head_is_measured_on_the_other_photographs(
    photographs, tmp_path, monkeypatch, capsys
):
    model = init_model(Conv4(width=4), (16, 16, 3), jax.random.key(0))
    path = save_model(tmp_path / "model.safetensors", model)
    for name, value in (("SHOTS", (1, 5)), ("SEEDS", 2), ("ROOT", tmp_path)):
        monkeypatch.setattr(photo_results, name, value)
    line = ["", str(photographs), "--name", "small", "--model", str(path)]
    monkeypatch.setattr("sys.argv", line)
    assert photo_results.main() == 0
    result = read_json(tmp_path / "docs/results/data/photographs_small.json")
    metrics = result["metrics"]
    assert (result["pictures"], result["classes"]) == (36, 3)
    for head in photo_results.KINDS:
        assert metrics[f"n5/{head}/accuracy"]["mean"] > 40  # chance is a third
        assert metrics[f"n1/{head}/accuracy"]["n"] == 2
    assert result["speed"]["fit_s"] > 0
    assert "| lda " in capsys.readouterr().out


def test_the_calibration_error_is_the_gap_in_each_bin():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False])
    found = photo_results._ece(confidence, right)
    assert found == pytest.approx(0.5 * 0.05 + 0.5 * 0.05)


def test_fitted_and_other_pictures_are_all_pictures():
    labels = np.repeat(np.arange(3), 4)
    fitted, rest = photo_results.split(labels, 2, 0)
    assert np.bincount(labels[fitted]).tolist() == [2, 2, 2]
    assert sorted([*fitted, *rest]) == [*range(12)]
