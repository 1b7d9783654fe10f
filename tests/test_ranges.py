"""Every number of every config has a range, and what is outside it is refused."""

import dataclasses
import importlib
import math
import typing

import pytest

from jaxfer import config as configs
from jaxfer.ranges import Range, check_ranges, ranges_of

NAMES = ("prototypes", "layer_transfer", "imprinting", "zero_shot")


def _part(name, part):
    return importlib.import_module(f"experiments.{name}.{part}")


def _numbers(config_class, prefix=""):
    """Dotted names of the fields whose type has a number in it."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from _numbers(hint, f"{name}.")
        elif {int, float} & {hint, *_parts(hint)}:
            yield name


def _parts(hint):
    for part in typing.get_args(hint):
        yield from (part, *_parts(part))


def _kind(config_class, name):
    """Whether a field has integers or floats."""
    head, _, rest = name.partition(".")
    hint = typing.get_type_hints(config_class)[head]
    if rest:
        return _kind(hint, rest)
    return float if float in {hint, *_parts(hint)} else int


def _outside(allowed, kind):
    yield kind(allowed.low - 1)
    if allowed.open_low:
        yield kind(allowed.low)
    if allowed.high is not None:
        yield kind(allowed.high + 1)
        if allowed.open_high:
            yield kind(allowed.high)
    if kind is float:
        yield from (math.nan, math.inf, -math.inf)


def _with(config, name, number):
    """The config with one number; a tuple gets it in the last place."""
    head, _, rest = name.partition(".")
    old = getattr(config, head)
    if rest:
        new = _with(old, rest, number)
    else:
        new = (*old[:-1], number) if isinstance(old, tuple) else number
    return dataclasses.replace(config, **{head: new})


FIELDS = [
    pytest.param(name, field, allowed, id=f"{name} {field}")
    for name in NAMES
    for field, _, allowed in ranges_of(_part(name, "config").Config())
]


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_a_range(name):
    config = _part(name, "config").Config()
    stated = {field for field, _, _ in ranges_of(config)}
    assert stated == {*_numbers(type(config))} and len(stated) > 30
    check_ranges(config)


@pytest.mark.parametrize(("name", "field", "allowed"), FIELDS)
def test_numbers_outside_are_refused_by_name(name, field, allowed):
    module = _part(name, "config")
    for number in _outside(allowed, _kind(module.Config, field)):
        if number == allowed.also:
            continue
        last = field.rpartition(".")[2]
        with pytest.raises(ValueError, match=rf"expected ([\w.]*\.)?{last} .*got"):
            module.check(_with(module.Config(), field, number))


@pytest.mark.parametrize("name", NAMES)
def test_a_command_line_ends_with_one_line_and_makes_no_folder(name, tmp_path, capsys):
    """One field of each kind of range, before data are loaded."""
    every = list(ranges_of(_part(name, "config").Config()))
    kinds = {
        allowed: (field, allowed)
        for field, _, allowed in every
        # It takes three numbers.
        if field != "data.class_shares"
    }
    config = tmp_path / "config.py"
    config.write_text(
        f"from experiments.{name}.config import Config\nconfig = Config()\n"
    )
    for field, allowed in kinds.values():
        option = f"--{field.replace('_', '-')}"
        argv = ["--config", str(config), "--workdir", str(tmp_path / "run")]
        with pytest.raises(SystemExit) as ended:
            configs.main(
                f"experiments.{name}",
                _part(name, "config").Config,
                [*argv, option, f"{allowed.low - 1:g}"],
            )
        shown = capsys.readouterr().err
        assert ended.value.code == 2 and len(shown.splitlines()) == 1, shown
        assert shown.startswith(f"error: expected {field} "), shown
    assert [*tmp_path.iterdir()] == [config]


@pytest.mark.parametrize(
    ("allowed", "number", "text"),
    [
        (Range(1, 9), 0, "from 1 to 9"),
        (Range(1, 999), 0, "of at least 1"),
        (Range(1, 999), 1000, "of at most 999"),
        (Range(1, 999, also=-1), 0, "of at least 1, or -1"),
        (Range(0), math.nan, "to be a finite number of at least 0"),
        (Range(0, open_low=True), 0, "to be a finite number above 0"),
        (Range(0, 1, open_high=True), 1, r"in \[0, 1\)"),
        (Range(0, 2**32, open_high=True), 2**32, r"in \[0, 2\^32\)"),
    ],
)
def test_messages_say_what_is_allowed(allowed, number, text):
    made = dataclasses.make_dataclass(
        "Made", [("n", typing.Annotated[float, allowed], 0.5)]
    )
    check_ranges(made((allowed.low + (allowed.high or 2)) / 2))
    with pytest.raises(ValueError, match=f"expected n {text}, got {number}"):
        check_ranges(made(number))


def test_numbers_in_tuples_and_inner_configs_are_checked():
    inner = dataclasses.make_dataclass(
        "Inner", [("ns", tuple[typing.Annotated[int, Range(1)], ...], (1, 2))]
    )
    outer = dataclasses.make_dataclass("Outer", [("inner", inner)])
    assert [name for name, _, _ in ranges_of(outer(inner()))] == ["inner.ns"]
    with pytest.raises(ValueError, match=r"expected inner.ns .*, got \[3, 0\]"):
        check_ranges(outer(inner((3, 0))))
