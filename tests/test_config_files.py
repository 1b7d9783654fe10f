"""Faults of config files: one line with the file, and the line where it is known."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from jaxfer.config_files import load_config


@dataclass(frozen=True)
class Task:
    way: int = 5
    shots: tuple[int, ...] = (1,)
    shares: tuple[float, float] | None = None
    rate: float | Literal["root"] = 1.0
    name: str | None = None
    flag: bool = False


@dataclass(frozen=True)
class Config:
    task: Task = field(default_factory=Task)
    seed: int = 0


HEAD = "from tests.test_config_files import Config, Task\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("config = (", r"c.py, line 2 cannot be read: '\(' was never closed"),
        ("import nosuch", "c.py, line 2 cannot be read: No module named 'nosuch'"),
        ("config = Config()\n1 / 0", "c.py, line 3 cannot be read: ZeroDivisionError"),
        ("raise SystemExit(0)", "c.py, line 2 .*: it ends the program, with 0"),
        ("config = Config(sed=1)", "line 2 .* unexpected keyword argument 'sed'"),
        ("\0", "c.py, line .* cannot be read: source code .* null bytes"),
        ("config = 3", r"expected config = .*Config\(...\) in .*c.py, got a int"),
        ("config = Config(seed='a')", "seed to be int, got 'a' in .*c.py, line 2"),
        ("config = Config(seed=True)", "expected seed to be int, got True"),
        ("config = Config(task=1)", "expected task to be Task, got 1"),
        (
            "config = Config(Task(shots=(1, 'a')))",
            r"task.shots to be tuple",
        ),
        ("config = Config(Task(shots=[1]))", r"task.shots to be .*, got \[1\]"),
        ("config = Config(Task(shares=(1.0,)))", "expected task.shares to be tuple"),
        ("config = Config(Task(rate='fast'))", "expected task.rate .*, got 'fast'"),
        ("config = Config(Task(flag=1))", "expected task.flag to be bool, got 1"),
        (
            "config = Config()\npublished = 7",
            "published to be a list .*line 3, got 7",
        ),
        ("config = Config()\npublished = [{'nome': 'x'}]", "a name, a value, .*line 3"),
    ],
)
def test_a_fault_has_its_place(text, message, tmp_path):
    path = tmp_path / "c.py"
    path.write_text(HEAD + text)
    with pytest.raises(ValueError, match=message) as refused:
        load_config(path, Config)
    assert "\n" not in str(refused.value)


def test_what_fits_is_read(tmp_path):
    path = tmp_path / "c.py"
    row = {"name": "a", "value": 1, "tolerance": 0.5, "source": "Table 1"}
    path.write_text(
        f"{HEAD}config = Config(Task(rate=2, shares=(1, 0.5), shots=(), name='x'))\n"
        f"published = [{row}]"
    )
    config, published = load_config(path, Config)
    assert config.task.rate == 2 and published == [row]
    assert load_config(path, Config)[0] == config
    with pytest.raises(ValueError, match=r"got no .*d.py; there are \['.*c.py'\]"):
        load_config(tmp_path / "d.py", Config)
