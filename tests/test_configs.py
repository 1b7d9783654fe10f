"""Every config file is loaded, and runs end to end once its numbers are shrunk."""

import dataclasses
import sys
from pathlib import Path

import pytest

from experiments import prototypes
from experiments.prototypes_config import Config
from jaxfer import config as configs
from jaxfer.config import to_json
from jaxfer.data import write_cache
from jaxfer.data.images import Images

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))


@pytest.fixture(autouse=True)
def _configs_import_experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def _load(path):
    argv = ["--config", str(path), "--workdir", "unused"]
    return configs.parse("experiments.prototypes", Config, argv)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_config_loads_and_is_json(path):
    command = _load(path)
    assert to_json(command.config)["episodes"] == command.config.episodes


@pytest.mark.usefixtures("small_glyphs")
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_shrunk_config_has_a_pulse(path, tmp_path, blobs, monkeypatch):
    command = _load(path)
    config = command.config
    if config.data.name == "omniglot":
        # 30 classes stand in for both parts; the real split needs the real set.
        def split(data: Images, name: str) -> Images:
            return data.take_classes(data.class_names, name=f"blobs {name}")

        sources = sys.modules["jaxfer.data.sources"]
        monkeypatch.setitem(sources.BY_CLASS, "omniglot", split)
        write_cache(blobs, tmp_path / "omniglot.cache")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dir=str(tmp_path)),
        net=dataclasses.replace(config.net, width=4),
        task=dataclasses.replace(config.task, way=min(config.task.way, 10), query=2),
        val=dataclasses.replace(
            config.val, every=config.episodes_per_step, episodes=3, query=2, patience=2
        ),
        test=dataclasses.replace(
            config.test,
            ways=config.test.ways[:1],
            shots=config.test.shots[:1],
            query=2,
            episodes=3,
        ),
        optim=dataclasses.replace(config.optim, warmup=0),
        episodes=2 * config.episodes_per_step,
        devices=1,
        save_every=2,
        log_every=1,
        figures=False,
    )
    result = prototypes.run(config, tmp_path / "run", command.published)
    pairs = [(w, s) for w in config.test.ways for s in config.test.shots]
    for way, shot in pairs:
        assert f"test/{way}way_{shot}shot/prototypes/accuracy" in result["metrics"]
    assert len(result["reference"]) == len(command.published)
