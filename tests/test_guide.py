"""The Python blocks of the guide run as they stand."""

import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs" / "guide.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_three_examples_are_short():
    for code in EXAMPLES[:3]:
        lines = [x for x in code.splitlines() if x.strip() and "import" not in x]
        assert len(lines) <= 20, code


def run(code: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict:
    monkeypatch.chdir(folder)
    names: dict = {"__name__": "guide"}
    exec(compile(code, "docs/guide.md", "exec"), names)
    return names


def test_layer_transfer_on_arrays(monkeypatch, tmp_path, capsys):
    run(EXAMPLES[0], monkeypatch, tmp_path)
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["n = 1", "n = 3", "n = 5"]
    # Twenty classes: chance is 5%.
    assert all(int(re.search(r"(\d+)% of B", line)[1]) > 15 for line in lines)


def test_new_classes_by_name(monkeypatch, tmp_path):
    names = run(EXAMPLES[1], monkeypatch, tmp_path)
    assert len(names["model"].class_names) == 23
    import jaxfer

    hits = [
        name == found
        for name, x in names["novel"].items()
        for found in jaxfer.predict(names["model"], x[5:]).names
    ]
    assert np.mean(hits) > 0.3  # chance is 1 in 23


def test_a_folder_of_pictures(monkeypatch, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    import jax

    import jaxfer
    from jaxfer.data import glyphs
    from jaxfer.nets import Conv4

    model = jaxfer.init_model(Conv4(), (28, 28, 1), jax.random.key(0))
    jaxfer.save_model(tmp_path / "runs" / "quickstart" / "model.safetensors", model)
    data = glyphs(alphabets=20, characters=1, drawers=20)
    for i in range(60):
        folder = tmp_path / "pictures" / f"class{data.labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(data.images[i, ..., 0]).save(folder / f"{i}.png")
    run(EXAMPLES[2], monkeypatch, tmp_path)
    right, total = re.match(r"(\d+) of (\d+) right", capsys.readouterr().out).groups()
    assert int(right) > int(total) / 3
    back = jaxfer.load_model(tmp_path / "runs" / "pictures")
    assert len(back.class_names) == len(set(data.labels[:60].tolist()))


@pytest.mark.parametrize("place", range(3, len(EXAMPLES)))
def test_networks_of_ones_own(monkeypatch, tmp_path, place, rng):
    import jax

    import jaxfer
    from jaxfer.data import from_arrays

    names = run(EXAMPLES[place], monkeypatch, tmp_path)
    if "net" not in names:
        assert names["model"].net.layers == ("Conv_0", "Dense_0")
        return
    data = from_arrays(rng.random((20, 28, 28)), np.arange(20) % 2)
    head = jaxfer.linear_head(jax.random.key(0), 16, 2)
    recipe = jaxfer.Recipe(jaxfer.Optim("sgd", 0.1), epochs=2, batch=10)
    found = jaxfer.train_batches(
        names["net"], data, recipe, key=jax.random.key(1), head=head
    )
    assert found.steps == 4 and jaxfer.embed(found.model, data).shape == (20, 16)
