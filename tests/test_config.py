import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxfer import config as configs
from jaxfer import distributed
from jaxfer import workdir as workdirs
from jaxfer.config import how, length, which
from jaxfer.runlog import read_json, write_json
from jaxfer.signals import interruptible

# A published value.
ROW = {"name": "m", "value": 1.0, "tolerance": 0.0, "source": "Table 1"}


@dataclass(frozen=True)
class Optim:
    learning_rate: float = 0.1
    halve_every: int = 2000


@dataclass(frozen=True)
class Options:
    save_every: int = 500
    progress: bool = True

    def __post_init__(self):
        if self.save_every < 0:
            raise ValueError(f"expected save_every of at least 0, got {self}")


@dataclass(frozen=True)
class Grid:
    by: str = "random"
    splits: tuple[int, ...] = which((0, 1))


@dataclass(frozen=True)
class Config:
    optim: Optim = field(default_factory=Optim)
    grid: Grid = Grid()
    ways: tuple[int, ...] = (5, 20)
    layers: tuple[int, ...] = which((1, 2))
    seed: int = 0
    log_every: int = how(100)
    run: Options = how(Options())


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
        f"published = [{ROW}]\n"
    )
    return path


def _parse(config_file, *options):
    argv = ["--config", str(config_file), "--workdir", "runs/x", *options]
    return configs.parse("experiments.lab", Config, argv)


def test_a_file_makes_the_config_and_options_override_it(config_file):
    command = _parse(config_file, "--seed", "3", "--optim.halve-every", "7")
    assert command.config == Config(optim=Optim(0.5, 7), seed=3)
    assert command.workdir == Path("runs/x")
    assert _parse(config_file, "--ways", "5", "10").config.ways == (5, 10)
    assert _parse(config_file, "--optim.halve_every", "7").config.optim.halve_every == 7


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--seed", "3"],
        ["--log-every", "7"],
        ["--run.save-every", "7", "--run.no-progress"],
        ["--layers", "1", "2", "3"],
        ["--grid.splits", "4"],
        ["--optim.learning-rate", "0.5"],
    ],
    ids=" ".join,
)
def test_published_values_stay_where_what_is_run_stays(config_file, capsys, options):
    """Seeds, options that say how, and options that select members."""
    assert _parse(config_file, *options).published == [ROW]
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--optim.halve-every", "7"], "optim.halve_every"),
        (["--ways", "5", "--seed", "3"], "ways"),
        (["--grid.by", "animals", "--optim.learning-rate", "1"], "optim.le.*grid.by"),
    ],
)
def test_published_values_are_dropped_with_one_line_where_what_is_run_changes(
    config_file, capsys, options, changed
):
    assert _parse(config_file, *options).published == []
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert re.match(f"no comparison with published values: .* changes {changed}", shown)


def test_nothing_is_said_where_nothing_is_published(config_file, capsys):
    config_file.write_text("from lab import Config\nconfig = Config()\n")
    assert _parse(config_file, "--ways", "5").published == []
    assert not capsys.readouterr().out


def test_the_workdir_is_named_after_the_config_unless_given(config_file):
    command = configs.parse("experiments.lab", Config, ["--config", str(config_file)])
    assert command.workdir == Path("runs/mine")


def test_a_request_to_stop_is_not_lost_while_an_object_is_deleted():
    class Deleted:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="stopped by SIGTERM"), interruptible():
        found = Deleted()
        del found
        time.sleep(5)


def test_ctrl_c_while_python_exits_has_no_effect():
    code = (
        "import atexit, time\n"
        "from jaxfer.signals import exit_after\n"
        "atexit.register(lambda: (print('exits', flush=True), time.sleep(2)))\n"
        "exit_after(lambda: 3)"
    )
    line = [sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "exits\n"
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 3 and not shown


def test_options_take_precedence_over_the_variables_of_jax(config_file, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "3")
    monkeypatch.delenv("JAX_PROCESS_ID", raising=False)
    started = []
    monkeypatch.setattr(
        distributed, "initialize", lambda start, timeout: started.append(start) or ""
    )
    argv = ["--config", str(config_file), "--coordinator-address", "node:1234"]

    def start(*more, together=True):
        command = configs.parse("experiments.lab", Config, [*argv, *more])
        return distributed.begin(command.places, together=together, timeout=9)

    assert not start("--process-id", "1")
    assert started[0][:3] == ("JAX variables", 3, 1)
    assert started[0].coordinator == "node:1234" and "JAX_PROCESS_ID" not in os.environ
    with pytest.raises(
        ValueError, match=r"variables, got none of \['JAX_PROCESS_ID'\]"
    ):
        start()
    with pytest.raises(
        ValueError, match="expected no place of the process, got .*node"
    ):
        start(together=False)


def test_the_processes_of_a_study_take_gpus_of_their_own(monkeypatch):
    """Under Slurm they see those of the whole node."""
    slurm = {"SLURM_STEP_NODELIST": "n1", "SLURM_NTASKS": "4", "SLURM_PROCID": "1"}
    slurm |= {"SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    for seen, own in (("4,5,6,7", "5"), ("0,1,2,3,4,5,6,7", "2,3")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
        said = distributed.begin({}, together=False, timeout=9)
        assert said == f"Slurm: process 1 of 4 takes GPU {own}"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert distributed.begin({}, together=False, timeout=9).endswith("takes GPU 1")


@pytest.mark.parametrize(
    ("options", "needle"),
    [
        (["--optim.learning-rat", "1"], "--optim.learning-rate"),
        (["--sead", "1"], "--seed"),
        (["--sead=1"], "--seed"),
        (["--save_every", "1"], "--run.save-every"),
        (["--run.no-progres"], "--run.no-progress"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_nearest_spelling(
    config_file, options, needle
):
    name = options[0].partition("=")[0].replace("_", "-")
    with pytest.raises(ValueError, match=f"^unknown option {name}: .* {needle}.$"):
        _parse(config_file, *options)


def test_an_option_that_is_like_no_other_is_refused(config_file):
    with pytest.raises(ValueError, match="^unknown option --xyzzy, see --help$"):
        _parse(config_file, "--xyzzy", "1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seed", "many"], "--seed: .*'many'"),
        (["--seed"], "'--seed'"),
        (["--run.save-every", "-1"], "expected run.save_every of at least 0, got .*-1"),
        (["stray"], "stray"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_in_one_line(
    config_file, capsys, options, message
):
    with pytest.raises(ValueError, match=message) as e:
        _parse(config_file, *options)
    assert "\n" not in str(e.value) and "─" not in str(e.value)
    assert capsys.readouterr() == ("", "")


def test_a_missing_file_is_refused_with_those_there_are(config_file):
    missing = config_file.with_name("mne.py")
    message = r"expected a config file, got no .*mne.py; there are .*mine.py"
    with pytest.raises(ValueError, match=message):
        _parse(missing)


def test_a_file_without_its_config_is_refused(config_file):
    config_file.write_text("config = 3\n")
    with pytest.raises(ValueError, match=r"expected config = .*Config\(...\) in .*int"):
        _parse(config_file)


def test_bad_input_is_one_line_and_code_2(capsys):
    with pytest.raises(SystemExit) as e, configs.clean_errors():
        raise ValueError("expected 4, got 3")
    assert e.value.code == 2
    assert capsys.readouterr().err == "error: expected 4, got 3\n"


def _lab(monkeypatch, run):
    report = SimpleNamespace(tables=lambda result: {"Accuracy": result["table"]})
    monkeypatch.setitem(sys.modules, "experiments.lab.run", SimpleNamespace(run=run))
    monkeypatch.setitem(sys.modules, "experiments.lab.report", report)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (OSError(28, "No space left on device"), "No space left on device: make room"),
        (
            ValueError("write error: No space left on device"),
            "No space left on device: ",
        ),
        (OSError(30, "Read-only file system", "a"), "Read-only file system: a"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "expected more memory on "),
        (MemoryError("8 TB"), "expected more memory: 8 TB"),
        (ValueError("one\n  two"), "one two"),
    ],
)
def test_full_disks_and_memory_end_in_one_line(
    config_file, capsys, monkeypatch, tmp_path, error, shown
):
    def run(*args):
        raise error

    _lab(monkeypatch, run)
    with pytest.raises(SystemExit) as ended:
        argv = ["--config", str(config_file), "--workdir", str(tmp_path / "x")]
        configs.main("experiments.lab", Config, argv)
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {shown}") and printed.count("\n") == 1


@pytest.mark.parametrize("error", [OSError(2, "No such file", "a"), RuntimeError("a")])
def test_faults_of_the_code_keep_their_traceback(
    config_file, monkeypatch, tmp_path, error
):
    def run(*args):
        raise error

    _lab(monkeypatch, run)
    with pytest.raises(type(error)):
        argv = ["--config", str(config_file), "--workdir", str(tmp_path / "x")]
        configs.main("experiments.lab", Config, argv)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_command_with_a_word(
    config_file, capsys, monkeypatch, tmp_path, sent
):
    before = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    _lab(monkeypatch, lambda *args: signal.raise_signal(sent))
    argv = ["--config", str(config_file), "--workdir", str(tmp_path / "x")]
    assert configs.main("experiments.lab", Config, argv) == 130
    word = "stopped by SIGTERM" if sent == signal.SIGTERM else "stopped"
    assert capsys.readouterr().out == (
        f"{word}; to go on:\n  python -m experiments.lab {' '.join(argv)}\n"
    )
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_command_prints_its_result_and_bad_input_ends_it(
    config_file, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    argv = ["--config", str(config_file), "--workdir", "runs/x"]
    seen = []
    findings = {
        str(i): {"expects": "above" if i else None, "seen": verdict}
        for i, verdict in enumerate([None, True, True, False, None])
    }

    def run(config, workdir, published):
        seen.append((config, workdir, published))
        workdir.mkdir(parents=True)
        (workdir / "result.json").touch()
        return {"table": "| n |", "findings": findings}

    _lab(monkeypatch, run)
    assert configs.main("experiments.lab", Config, argv) == 0
    assert seen == [(Config(optim=Optim(0.5)), Path("runs/x"), [ROW])]
    assert capsys.readouterr().out == (
        "\nAccuracy:\n\n| n |\n\n"
        "findings of the paper: 2 seen, 1 not seen, 1 undecided\n"
        "  all metrics: runs/x/result.json\n"
    )

    def stopped(*args):
        raise KeyboardInterrupt("stopped at step 3, saved")

    _lab(monkeypatch, stopped)
    assert configs.main("experiments.lab", Config, argv) == 130
    line = f"python -m experiments.lab --config {config_file} --workdir runs/x"
    shown = capsys.readouterr().out
    assert shown == f"stopped at step 3, saved; to go on:\n  {line}\n"
    with pytest.raises(SystemExit) as e:
        configs.main("experiments.lab", Config, [*argv, "--sead", "1"])
    assert e.value.code == 2
    assert capsys.readouterr().err.startswith("error: unknown option --sead: did")


def test_the_help_needs_no_config_file(capsys):
    with pytest.raises(SystemExit) as e:
        configs.main("experiments.lab", Config, ["--help"])
    assert e.value.code == 0
    assert "--optim.learning-rate" in capsys.readouterr().out


def test_fields_by_what_they_are(tmp_path):
    """What: the result depends on it. How and which do not show."""
    assert configs.what_of(Config(ways=(7,), layers=(9,), log_every=1)) == {
        "optim.learning_rate": 0.1,
        "optim.halve_every": 2000,
        "grid.by": "random",
        "ways": [7],
        "seed": 0,
    }


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


def test_numbers_below_the_least_are_refused():
    values = {"a": 1, "b": None, "c": 0}
    configs.check_at_least(1, values, ["a", "b"])
    with pytest.raises(ValueError, match="expected c of at least 1, got 0"):
        configs.check_at_least(1, values, ["a", "b", "c"])


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
