"""Folders of runs: whose they are, and what may change when a run goes on."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass

import pytest

from jaxfer import config as configs
from jaxfer import workdir as workdirs
from jaxfer.config import length, which
from jaxfer.runlog import read_json, write_json
from tests.test_config import Config, Grid, Optim


def test_a_study_grows_by_what_is_asked_of_it(tmp_path):
    config = Config()
    whole = workdirs.join_workdir(tmp_path, config)
    assert whole == config
    more = dataclasses.replace(
        config, layers=(2, 3), grid=Grid(splits=(7,)), log_every=9
    )
    whole = workdirs.join_workdir(tmp_path, more)
    assert (whole.layers, whole.grid.splits) == ((1, 2, 3), (0, 1, 7))
    assert whole.log_every == 9
    assert read_json(tmp_path / "config.json") == configs.to_json(whole)
    # A part of it changes nothing.
    assert workdirs.join_workdir(tmp_path, config).layers == (1, 2, 3)
    other = dataclasses.replace(more, ways=(7,))
    message = r"ways = \[5, 20\] \(got \[7\]\); choose another"
    with pytest.raises(ValueError, match=message):
        workdirs.join_workdir(tmp_path, other)
    assert read_json(tmp_path / "config.json")["ways"] == [5, 20]
    # A run that is not a study does not grow.
    with pytest.raises(ValueError, match=r"grid.splits = .*, layers = "):
        workdirs.check_workdir(tmp_path, config)


def test_a_study_is_finished_for_the_members_of_its_result(tmp_path, capsys):
    config = Config(layers=(1, 2, 3))
    assert workdirs.earlier_result(tmp_path, config, grows=True) is None
    workdirs.join_workdir(tmp_path, config)
    assert workdirs.earlier_result(tmp_path, config, grows=True) is None
    result = {"experiment": "lab", "config": configs.to_json(config)}
    result |= {"metrics": {}, "reference": []}
    write_json(tmp_path / "result.json", result)
    assert not capsys.readouterr().out
    for asked in (config, Config(layers=(3, 1)), Config(layers=())):
        assert workdirs.earlier_result(tmp_path, asked, grows=True) == result
        assert f"{tmp_path} is finished" in capsys.readouterr().out
    for more in (Config(layers=(1, 4)), Config(grid=Grid(splits=(2,)))):
        assert workdirs.earlier_result(tmp_path, more, grows=True) is None
        # Before others trained what it asks for, its config may name them already.
        workdirs.join_workdir(tmp_path, more)
        assert workdirs.earlier_result(tmp_path, more, grows=True) is None
    with pytest.raises(ValueError, match=r"layers = "):
        workdirs.earlier_result(tmp_path, config)
    with pytest.raises(ValueError, match=r"seed = 0 \(got 4\)"):
        workdirs.earlier_result(tmp_path, Config(seed=4), grows=True)


def test_options_of_earlier_versions_do_not_matter(tmp_path):
    config = Config()
    write_json(tmp_path / "config.json", {**configs.to_json(config), "devices": 2})
    workdirs.check_workdir(tmp_path, config)


def test_how_may_change_on_resume_and_what_may_not(tmp_path):
    workdir = tmp_path / "run"
    config = Config()
    with workdirs.open_workdir(workdir, config):
        pass
    assert read_json(workdir / "config.json")["optim.learning_rate"] == 0.1
    with workdirs.open_workdir(workdir, dataclasses.replace(config, log_every=7)):
        pass
    assert read_json(workdir / "config.json")["log_every"] == 7
    other = Config(optim=Optim(0.2), seed=5, log_every=9)
    message = (
        r"another config: optim.learning_rate = 0.1 \(got 0.2\), "
        r"seed = 0 \(got 5\); choose another"
    )
    with (
        pytest.raises(ValueError, match=message),
        workdirs.open_workdir(workdir, other),
    ):
        pass
    assert read_json(workdir / "config.json")["log_every"] == 7


@dataclass(frozen=True)
class Timed:
    epochs: int = length(3)
    seeds: tuple[int, ...] = which((0,))
    rate: float = 0.1


def test_a_longer_run_goes_on_only_when_nothing_speaks_against_it(tmp_path, capsys):
    short, long = Timed(), Timed(epochs=5)
    assert configs.what_of(long) == {"epochs": 5, "rate": 0.1}
    with workdirs.open_workdir(tmp_path, short):
        pass
    result = {"experiment": "lab", "config": configs.to_json(short)}
    write_json(tmp_path / "result.json", result | {"metrics": {}, "reference": []})
    there = rf"{tmp_path} holds a shorter run: epochs = 3 \(got 5\); "
    for how_, message in (
        ({}, "choose another --workdir$"),
        ({"refusal": "say please"}, "say please$"),
        (
            {"grows": True},
            "networks of a study are trained to their end and their checkpoints are "
            "removed: choose another",
        ),
    ):
        with pytest.raises(ValueError, match=there + message):
            workdirs.earlier_result(tmp_path, long, **how_)
    assert workdirs.earlier_result(tmp_path, long, refusal=None) is None
    for other in (Timed(5, rate=0.2), Timed(2)):
        with pytest.raises(ValueError, match="holds a run of another config: epochs"):
            workdirs.earlier_result(tmp_path, other, refusal=None)
    # The shorter run keeps the folder until the longer one has trained.
    with workdirs.open_workdir(tmp_path, long, refusal=None):
        assert workdirs.earlier_result(tmp_path, short) is not None
        workdirs.replace_run(tmp_path, long)
    assert workdirs.earlier_result(tmp_path, long) is None
    assert read_json(tmp_path / "config.json")["epochs"] == 5
    with pytest.raises(ValueError, match=r"epochs = 5 \(got 3\)"):
        workdirs.check_workdir(tmp_path, short, refusal=None)


def test_a_run_of_another_experiment_is_refused(tmp_path):
    with workdirs.open_workdir(tmp_path, Config()):
        pass
    message = r"holds a run of another config: .* \(got None\)"
    with (
        pytest.raises(ValueError, match=message),
        workdirs.open_workdir(tmp_path, Optim()),
    ):
        pass


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    with workdirs.open_workdir(tmp_path, Config()):
        with (
            pytest.raises(ValueError, match=f"another run is working in {tmp_path}"),
            workdirs.open_workdir(tmp_path, Config()),
        ):
            pass
    with workdirs.open_workdir(tmp_path, Config()):
        pass


def test_the_lock_of_a_killed_run_is_gone(tmp_path):
    holder = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from dataclasses import make_dataclass\n"
        "from jaxfer.workdir import open_workdir\n"
        "with open_workdir(Path(sys.argv[1]), make_dataclass('C', [])()):\n"
        "    print('held', flush=True)\n    signal.pause()\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert running.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match="another run"):
        workdirs.open_workdir(tmp_path, Config()).__enter__()
    running.kill()
    running.wait()
    running.stdout.close()
    (tmp_path / "config.json").unlink()
    with workdirs.open_workdir(tmp_path, Config()):
        pass


@pytest.mark.parametrize("folder", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, folder):
    (tmp_path / "file").touch()
    message = f"the workdir {tmp_path / folder} cannot be written .*choose another"
    with (
        pytest.raises(ValueError, match=message),
        workdirs.open_workdir(tmp_path / folder, Config()),
    ):
        pass


def test_a_run_of_the_first_version_is_refused_with_a_word(tmp_path):
    write_json(tmp_path / "config.json", {"data.limit": 4.0, "seed": 0})
    with pytest.raises(ValueError, match=r"a run of jaxfer 0\.1, which cannot be"):
        workdirs.check_workdir(tmp_path, Config())


def test_a_config_of_the_first_version_says_what_replaced_its_import(tmp_path):
    path = tmp_path / "old.py"
    path.write_text("from experiments.prototypes_config import Config\n")
    with pytest.raises(ValueError, match=r"now called experiments\.prototypes\.config"):
        configs.parse("x", Config, ["--config", str(path)])
