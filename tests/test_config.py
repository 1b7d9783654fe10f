import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jaxfer import config as configs
from jaxfer.config import how
from jaxfer.runlog import read_json


@dataclass(frozen=True)
class Optim:
    learning_rate: float = 0.1
    halve_every: int = 2000


@dataclass(frozen=True)
class Config:
    optim: Optim = field(default_factory=Optim)
    ways: tuple[int, ...] = (5, 20)
    seed: int = 0
    log_every: int = how(100)


@pytest.fixture
def config_file(tmp_path, monkeypatch) -> Path:
    # What an experiment is to its config files.
    monkeypatch.setitem(
        __import__("sys").modules, "lab", __import__("types").ModuleType("lab")
    )
    __import__("lab").Config, __import__("lab").Optim = Config, Optim
    path = tmp_path / "mine.py"
    path.write_text(
        "from lab import Config, Optim\n"
        "config = Config(optim=Optim(learning_rate=0.5))\n"
        "published = [{'name': 'm'}]\n"
    )
    return path


def _parse(config_file, *options):
    argv = ["--config", str(config_file), "--workdir", "runs/x", *options]
    return configs.parse("experiments.lab", Config, argv)


def test_a_file_makes_the_config_and_options_override_it(config_file):
    command = _parse(config_file, "--seed", "3", "--optim.halve-every", "7")
    assert command.config == Config(optim=Optim(0.5, 7), seed=3)
    assert command.published == [{"name": "m"}]
    assert command.workdir == Path("runs/x")
    assert _parse(config_file, "--ways", "5", "10").config.ways == (5, 10)
    assert _parse(config_file, "--optim.halve_every", "7").config.optim.halve_every == 7


def test_the_command_can_be_shown_again(config_file):
    line = _parse(config_file, "--seed", "3").line
    expected = f"python -m experiments.lab --config {config_file} --workdir runs/x"
    assert line == f"{expected} --seed 3"


def test_the_workdir_is_named_after_the_config_unless_given(config_file):
    command = configs.parse("experiments.lab", Config, ["--config", str(config_file)])
    assert command.workdir == Path("runs/mine")


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--optim.learning-rat", "1"], "--optim.learning-rate"),
        (["--sead", "1"], "--seed"),
    ],
)
def test_a_misspelt_option_ends_with_the_nearest_spelling(
    config_file, capsys, options, needle
):
    with pytest.raises(SystemExit) as e:
        _parse(config_file, *options)
    assert e.value.code == 2
    shown = capsys.readouterr().err
    assert needle in shown and options[0] in shown


def test_an_ill_typed_value_is_refused(config_file, capsys):
    with pytest.raises(SystemExit) as e:
        _parse(config_file, "--seed", "many")
    assert e.value.code == 2
    assert "many" in capsys.readouterr().err


def test_a_missing_file_is_refused_with_those_there_are(config_file):
    missing = config_file.with_name("mne.py")
    with pytest.raises(ValueError, match=r"found no config .*mne.py.*mine.py"):
        _parse(missing)


def test_a_file_without_its_config_is_refused(config_file):
    config_file.write_text("config = 3\n")
    with pytest.raises(ValueError, match="found config = int in .*needed a .*Config"):
        _parse(config_file)


def test_bad_input_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as e, configs.clean_errors():
        raise ValueError("found 3, needed 4")
    assert e.value.code == 2
    assert capsys.readouterr().err == "error: found 3, needed 4\n"


def test_how_may_change_on_resume_and_what_may_not(tmp_path):
    workdir = tmp_path / "run"
    config = Config()
    with configs.open_workdir(workdir, config):
        pass
    assert read_json(workdir / "config.json")["optim.learning_rate"] == 0.1
    with configs.open_workdir(workdir, dataclasses.replace(config, log_every=7)):
        pass
    assert read_json(workdir / "config.json")["log_every"] == 7
    other = Config(optim=Optim(0.2), seed=5, log_every=9)
    message = (
        r"another config: optim.learning_rate \(there 0.1, here 0.2\), "
        r"seed \(there 0, here 5\); choose another"
    )
    with (
        pytest.raises(ValueError, match=message),
        configs.open_workdir(workdir, other),
    ):
        pass
    assert read_json(workdir / "config.json")["log_every"] == 7


def test_a_run_of_another_experiment_is_refused(tmp_path):
    with configs.open_workdir(tmp_path, Config()):
        pass
    message = r"halve_every \(there 2000, here None\)"
    with (
        pytest.raises(ValueError, match=message),
        configs.open_workdir(tmp_path, Optim()),
    ):
        pass


def test_two_runs_in_one_folder_are_one_too_many(tmp_path):
    with configs.open_workdir(tmp_path, Config()):
        with (
            pytest.raises(ValueError, match=f"another run is at work in {tmp_path}"),
            configs.open_workdir(tmp_path, Config()),
        ):
            pass
    with configs.open_workdir(tmp_path, Config()):
        pass


def test_the_lock_of_a_killed_run_is_gone(tmp_path):
    holder = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from dataclasses import make_dataclass\n"
        "from jaxfer.config import open_workdir\n"
        "with open_workdir(Path(sys.argv[1]), make_dataclass('C', [])()):\n"
        "    print('held', flush=True)\n    signal.pause()\n"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdout=subprocess.PIPE
    )
    assert running.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match="another run"):
        configs.open_workdir(tmp_path, Config()).__enter__()
    running.kill()
    running.wait()
    running.stdout.close()
    (tmp_path / "config.json").unlink()
    with configs.open_workdir(tmp_path, Config()):
        pass


@pytest.mark.parametrize("folder", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, folder):
    (tmp_path / "file").touch()
    message = f"the workdir {tmp_path / folder} cannot be written .*choose another"
    with (
        pytest.raises(ValueError, match=message),
        configs.open_workdir(tmp_path / folder, Config()),
    ):
        pass
