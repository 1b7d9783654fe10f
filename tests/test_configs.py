"""Every config file is loaded, and runs end to end once its numbers are shrunk."""

import dataclasses
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import imprinting, layer_transfer, prototypes
from experiments.backbone import make_net
from experiments.imprinting_config import Config as ImprintingConfig
from experiments.imprinting_config import Rows
from experiments.layer_transfer_config import Config as TransferConfig
from experiments.layer_transfer_members import members
from experiments.prototypes_config import Config
from jaxfer import config as configs
from jaxfer.config import to_json
from jaxfer.data import write_cache
from jaxfer.data.images import Images

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
EXPERIMENTS = {
    "prototypes": Config,
    "layer_transfer": TransferConfig,
    "imprinting": ImprintingConfig,
}


@pytest.fixture(autouse=True)
def _configs_import_experiments(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def _experiment(path):
    """Of the line that the file says to run it by."""
    return path.read_text().split("python -m experiments.")[1].split()[0]


# Others are these with other numbers.
PULSES = {
    "cifar100_imprinting",
    "cifar100_layer_transfer",
    "omniglot_1shot",
    "omniglot_modern",
    "quickstart",
}


def _of(experiment):
    return [
        pytest.param(
            path,
            id=path.stem,
            marks=() if path.stem in PULSES else pytest.mark.slow,
        )
        for path in FILES
        if _experiment(path) == experiment
    ]


def _load(path):
    name = _experiment(path)
    argv = ["--config", str(path), "--workdir", "unused"]
    return configs.parse(f"experiments.{name}", EXPERIMENTS[name], argv)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_config_loads_is_json_and_makes_a_run(path):
    config = _load(path).config
    assert to_json(config)["data.name"] == config.data.name
    checked = importlib.import_module(f"experiments.{_experiment(path)}_config")
    refuse = getattr(checked, "check_numbers", None) or checked.check
    refuse(config)
    if isinstance(config, ImprintingConfig) and config.data.side:
        config.augment.window(config.data.side, config.data.side)
        if config.data.pixels == "range":
            checked.check_streamed(config)
    if isinstance(config, TransferConfig):
        # Names that fit every rule of halves.
        names = ["fish/a", "vehicles_1/b", "angular00/c", "curved00/d"]
        num_layers = len(make_net(config.net, 2).layers)
        for member in members(config, names, num_layers):
            assert member.n <= num_layers


@pytest.fixture
def others_stand_in(tmp_path, blobs, monkeypatch):
    """30 classes in place of what has to be downloaded; their last examples test."""
    # Half of them are called animals.
    names = [f"{'fish' if i < 15 else 'trees'}/{i}" for i in range(30)]
    named = dataclasses.replace(blobs, class_names=tuple(names))

    def split(data: Images, name: str) -> Images:
        is_test = np.arange(len(data.labels)) % 12 >= 8
        return data.take(np.flatnonzero(is_test == (name == "test")), name=name)

    sources = sys.modules["jaxfer.data.sources"]
    for name in ("caltech_birds2011", "cifar100", "folder", "i_naturalist2017"):
        write_cache(named, tmp_path / f"{name}.cache")
        monkeypatch.setitem(sources.BY_EXAMPLE, name, split)


@pytest.mark.usefixtures("small_glyphs")
@pytest.mark.parametrize("path", _of("layer_transfer"))
def test_a_shrunk_study_has_a_pulse(path, tmp_path, others_stand_in):
    command = _load(path)
    config = command.config
    grids = {
        name: dataclasses.replace(
            grid,
            splits=grid.splits[:1],
            seeds=grid.seeds[:1],
            treatments=("base", "AnB"),
        )
        for name, grid in config.grids().items()
        if grid.by != "whole"
    }
    classes = None if config.data.name == "cifar100" else 20
    config = dataclasses.replace(
        config,
        **grids,
        untrained=dataclasses.replace(config.untrained, splits=()),
        data=dataclasses.replace(
            config.data, dir=str(tmp_path), classes=classes, side=None
        ),
        net=dataclasses.replace(config.net, width=2, dense=4),
        optim=dataclasses.replace(config.optim, warmup=0.0),
        layers=config.layers[:1],
        epochs=1,
        batch=20,
        population=None,
        steps_per_call=1,
        figures=False,
    )
    result = layer_transfer.run(config, tmp_path / "run", command.published)
    n = config.layers[0]
    for name in grids:
        assert f"{name}/n{n}/AnB/accuracy" in result["metrics"]


@pytest.mark.usefixtures("small_glyphs", "others_stand_in")
@pytest.mark.parametrize("path", _of("imprinting"))
def test_a_shrunk_imprinting_study_has_a_pulse(path, tmp_path):
    command = _load(path)
    config, none = command.config, Rows((), ())
    classes = 20 if config.data.name == "glyphs" else None
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data,
            dir=str(tmp_path),
            classes=classes,
            base=16,
            base_min_images=None,
            min_images=1,
            side=None,
        ),
        net=dataclasses.replace(config.net, width=2, dense=4),
        augment=dataclasses.replace(config.augment, side=None),
        dim=4,
        shots=(1,),
        seeds=(0,),
        tuned=Rows((1,), (0,)),
        transfer=none,
        joint=none,
        dims=(),
        losses=(),
        side_seeds=(0,),
        side_shots=(),
        epochs=1,
        finetune_epochs=1,
        batch=20,
        copies=1,
        steps_per_call=1,
        figures=False,
    )
    result = imprinting.run(config, tmp_path / "run", command.published)
    split = "16+14" if classes is None else "16+4"
    for row in ("imprinting", "imprinting_ft"):
        assert f"{split}/n1/{row}/novel" in result["metrics"]


@pytest.mark.usefixtures("small_glyphs")
@pytest.mark.parametrize("path", _of("prototypes"))
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
