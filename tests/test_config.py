import os
import re
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxfer import config as configs
from jaxfer import distributed
from jaxfer.config import how, which

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


def test_numbers_below_the_least_are_refused():
    values = {"a": 1, "b": None, "c": 0}
    configs.check_at_least(1, values, ["a", "b"])
    with pytest.raises(ValueError, match="expected c of at least 1, got 0"):
        configs.check_at_least(1, values, ["a", "b", "c"])
