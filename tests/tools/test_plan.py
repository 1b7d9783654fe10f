"""The plan of a training on chips that are not here: its parts, and small programs."""

import dataclasses
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments.imprinting.config import Config as Imprinting
from experiments.inputs import Network
from experiments.layer_transfer.config import Config as LayerTransfer
from experiments.prototypes.config import Config, Data, Task
from experiments.zero_shot.config import Config as ZeroShot
from jaxfer import compilation, nets
from jaxfer.sharding import make_mesh
from tools import bench_plan, bench_scaling, plan
from tools.planning import steps
from tools.planning.chips import CHIPS, read_topology
from tools.planning.programs import (
    Cost,
    collectives_of,
    cost_of,
    kernels_of,
    main_memory_bytes,
    size_of,
)

ROOT = Path(__file__).resolve().parents[2]
# Those of the documentation, in which rows have topologies.
PLANS = sorted((ROOT / "docs" / "results" / "data").glob("plan_*.json"))
PLANS = [path for path in PLANS if "plan" in json.loads(path.read_text())]
FACTS = steps.Facts(12, 20, (16, 16, 1))
SMALL = Network("Conv4", width=4)
PROTOTYPES = Config(net=SMALL, task=Task(way=5, shot=1, query=3))
CONFIGS = {
    "prototypes": PROTOTYPES,
    "layer_transfer": LayerTransfer(net=Network(width=4, dense=16), batch=8),
    "imprinting": Imprinting(net=Network(width=4, dense=16), dim=8, batch=8),
}


def _cost(config, devices, model=1, facts=FACTS, **how):
    mesh = make_mesh(devices // model, model)
    lowered = steps.lower(config, facts, mesh, platform="cpu", **how)
    options = compilation.compiler_options("cpu")
    compiled = lowered.program.compile(compiler_options=options)
    cost = cost_of(compiled, lowered.program, chips=devices, platform="cpu")
    return lowered, cost


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_every_experiment_has_the_same_work_per_chip(name, streamed):
    """Weak scaling: operations, bytes and memory of a chip stay, and no array moves."""
    how = {"per_chip": 1 if name == "prototypes" else 4, "streamed": streamed}
    (two, few), (eight, many) = (_cost(CONFIGS[name], n, **how) for n in (2, 8))
    assert eight.per_step == 4 * two.per_step
    assert {*few.collectives} == {*many.collectives} == {"all-reduce"}
    for field in ("flops", "read", "temporary"):
        one, other = getattr(few, field), getattr(many, field)
        assert other == pytest.approx(one, rel=0.1), field


def test_there_are_plans():
    assert PLANS


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_work_of_a_chip_is_the_same_from_16_to_1024_of_them(path):
    """As the compilers of TPUs and GPUs say; see docs/performance.md."""
    rows = json.loads(path.read_text())["plan"]
    for chip in CHIPS:
        # Between slices, gradients go another way.
        own = [row for row in rows if row["topology"].startswith(f"{chip}:")]
        own = [r for r in own if r["chips"] >= 16 and "*" not in r["topology"]]
        for field in ("flops", "read", "accessed", "temporary", "sent"):
            values = [row[field] for row in own]
            if field == "sent":
                values = [sum(value.values()) for value in values]
            assert not own or max(values) <= 1.1 * min(values), (chip, field)


def test_the_rows_of_a_head_are_split_over_model():
    config = dataclasses.replace(
        CONFIGS["layer_transfer"], net=Network(width=4, dense=256), outputs=4096
    )
    _, whole = _cost(config, 2, per_chip=4)
    _, split = _cost(config, 4, model=2, per_chip=4)
    head = 4 * 256 * 4096
    # The weights and their momentum; the other chip of the pair has the rest.
    assert whole.memory - split.memory > head
    with pytest.raises(ValueError, match="no chips of 'model' for episodes"):
        _cost(PROTOTYPES, 2, model=2)


def test_bfloat16_is_used():
    half = dataclasses.replace(SMALL, precision="bfloat16")
    text = [
        steps.lower(
            dataclasses.replace(PROTOTYPES, net=net),
            FACTS,
            make_mesh(1),
            platform="cpu",
        ).program.as_text()
        for net in (SMALL, half)
    ]
    assert "bf16" in text[1] and "bf16" not in text[0]


def test_a_step_is_traced_for_the_platform_that_is_named():
    """On other platforms than the CPU, several steps are a loop."""
    loops = {}
    for platform in ("cpu", "tpu"):
        lowered = steps.lower(PROTOTYPES, FACTS, make_mesh(1), platform=platform)
        loops[platform] = lowered.program.as_text().count("stablehlo.while")
    assert loops["tpu"] == loops["cpu"] + 1
    assert compilation.target() == jax.default_backend()


def test_configs_and_data_that_cannot_be_planned_are_refused():
    with pytest.raises(ValueError, match=r"got one of experiments\.zero_shot\.config"):
        steps.lower(ZeroShot(), FACTS, make_mesh(1), platform="cpu")
    with pytest.raises(ValueError, match="--per-class and --image for glyphs"):
        steps.facts_of(dataclasses.replace(PROTOTYPES, data=Data("glyphs")))


@pytest.mark.parametrize(
    ("text", "size", "together"),
    [("v5e:1x1", 1, 1), ("v5e:16x16*4", 1024, 256), ("v5p:8x8x16", 1024, 1024)]
    + [("h100:4x8", 32, 8), ("h200:1x1", 1, 1)],
)
def test_topologies(text, size, together):
    topology = read_topology(text)
    assert (topology.size, topology.together) == (size, together)


@pytest.mark.parametrize(
    "text", ["v5e", "v9:1x1", "h100:1x2x3", "h100:1x8*2", "v5e:4x", "v5e:4x4*", ""]
)
def test_topologies_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match="expected"):
        read_topology(text)


def test_the_time_of_a_step_by_hand():
    """4 chips in two hosts: products, arrays, and two rings."""
    cost = Cost(0, 1e12, 1e9, 1e9, 0, 0, {}, {"all-reduce": 1e8}, None)
    topology, chip = read_topology("h100:2x2"), CHIPS["h100"]
    times = plan.step_times(cost, topology, half=False)
    rings = 2 * (1 / 2) * 1e8 / chip.link + 2 * (1 / 2) * 5e7 / chip.network
    assert times["products_s"] == pytest.approx(1e12 / 495e12)
    assert times["arrays_s"] == pytest.approx(1e9 / 3.35e12)
    assert times["collectives_s"] == pytest.approx(rings)
    assert times["step_s"] == pytest.approx(1e12 / 495e12 + rings)
    many = plan.step_times(cost._replace(kernels=100), topology, half=False)
    assert many["step_s"] == pytest.approx(times["step_s"] + 100 * 5e-6)
    half = plan.step_times(cost, topology, half=True)
    assert half["products_s"] == pytest.approx(1e12 / 989e12)
    rows = [
        {"topology": "h100:1x1", "chips": 1, "per_step": 1, "step_s": 1.0},
        {"topology": "h100:1x8", "chips": 8, "per_step": 8, "step_s": 1.25},
    ]
    assert [row["efficiency"] for row in plan.with_efficiency(rows)] == [1, 0.8]


TEXT = """
%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  %y = f32[8]{0} fusion(%p), kind=kLoop, calls=%f
  %z = f32[8]{0} custom-call(%y), custom_call_target="__cublas$gemm"
  ROOT %t = (s32[], f32[8]{0}) tuple(%y, %z)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %b = f32[2,4]{1,0} bitcast(%x)
  %s = ((f32[8]{0}), f32[8]{0}) all-reduce-start(%x), to_apply=%add
  %d = f32[8]{0} all-reduce-done(%s)
  %g = bf16[32]{0} all-gather(%h), dimensions={0}
  %w = (s32[], f32[8]{0}) while(%d), condition=%c, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %o = f32[8]{0} get-tuple-element(%w), index=1
}
"""


def test_a_program_is_read():
    assert size_of("(f32[2,3]{1,0}, pred[], (u8[5]{0}))") == 30
    counts, sent = collectives_of(TEXT)
    assert counts == {"all-reduce": 1, "all-gather": 1}
    assert sent["all-reduce"] == 32
    # The start of the all-reduce, the all-gather, and three turns of two kernels.
    assert kernels_of(TEXT) == 8


def test_what_is_gathered_is_read_and_what_is_reduced_is_read_whole():
    text = """
%f (p: f32[800], i: s32[]) -> f32[8] {
  %p = f32[800]{0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[8,100]{1,0} bitcast(%p)
  ROOT %g = f32[2,4]{1,0} gather(%b, %i), slice_sizes={2,4}
}

%r (p: f32[800]) -> f32[] {
  %p = f32[800]{0} parameter(0)
  ROOT %s = f32[] reduce(%p, %zero), to_apply=%add
}

ENTRY %main (x: f32[800]) -> f32[] {
  %x = f32[800]{0:T(128)} parameter(0)
  %i = s32[]{:T(128)S(6)} parameter(1)
  %a = f32[2,4]{1,0:T(128)} fusion(%x, %i), kind=kLoop, calls=%f
  ROOT %b = f32[]{:T(128)S(1)} fusion(%x), kind=kInput, calls=%r
}
"""
    # 8 numbers gathered and written, a number of the index, and 800 that are summed.
    assert main_memory_bytes(text) == 4 * (8 + 8 + 1 + 800)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_planned_step_is_timed(name):
    """On random parameters and pixels, of which nothing becomes NaN."""
    lowered = steps.lower(CONFIGS[name], FACTS, make_mesh(1), platform="cpu")
    rng = np.random.default_rng(0)
    state, data = bench_plan.filled(lowered.arguments, FACTS, rng)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (state, data))
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), lowered.arguments)
    _, metrics = lowered.program.compile()(state, data)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(metrics))
    row = bench_plan.timed(CONFIGS[name], FACTS, count=1, calls=3)
    assert 0 < row["fastest_s"] <= row["step_s"] <= row["slowest_s"]
    row |= {"config": name, "options": ["--a", "1"], "estimated_step_s": row["step_s"]}
    assert f"| {name} --a 1 | {row['device']}" in bench_plan.table([row])
    assert "| 1.0 " in bench_plan.table([row])


def test_a_planned_step_is_timed_on_several_devices(monkeypatch):
    monkeypatch.setattr(steps, "facts_of", lambda config: FACTS)
    found = bench_scaling.measure(PROTOTYPES, seconds=0.1)
    net = nets.as_net(PROTOTYPES.net.build(FACTS.shape), FACTS.shape)
    gradients = 4 * nets.num_params(net, FACTS.shape)
    # And statistics of BatchNorm, the loss and the accuracy.
    assert gradients <= found["sent"] <= 1.5 * gradients
    assert found["step_s"] > 0 and found["reduce_s"] > 0
    row = {"config": "a.py", "options": ["--b"], "processes": 2, "cores": 3}
    row |= {"repeats": 5, "one_s": 0.1, "apart_s": 0.125, "together_s": 0.25}
    row |= {"reduce_s": 0.1, "sent": 1.5e6, "efficiencies": [0.3, 0.6]}
    *_, line = bench_scaling.table([row]).splitlines()
    times = ["1.50", "100.0", "125.0", "250.0", "100.0"]
    shares = ["0.80", "0.40 (0.30 to 0.60)", "0.50", "-0.10"]
    assert [cell.strip() for cell in line.strip("|").split("|")] == (
        ["a.py --b", "2 x 3", "5", *times, *shares]
    )


@pytest.mark.slow
def test_one_process_and_two_are_compared(capsys, tmp_path):
    line = ["--config", "configs/omniglot_1shot.py", "--repeats", "1", "--seconds", "1"]
    kept = tmp_path / "scaling.json"
    assert (
        bench_scaling.main([*line, "--json", str(kept), "--", "--net.width", "4"]) == 0
    )
    (row,) = json.loads(kept.read_text())["scaling"]
    assert row["processes"] == 2 and row["sent"] > 0
    names = ("one_s", "apart_s", "together_s", "reduce_s")
    assert all(0 < row[name] < 10 for name in names)
    assert "omniglot_1shot.py --net.width 4" in capsys.readouterr().out


def test_a_process_alone_has_nothing_to_compare_with(capsys):
    for option, value, least in (("--processes", "1", 2), ("--repeats", "0", 1)):
        with pytest.raises(SystemExit):
            bench_scaling.main(["--config", "configs/x.py", option, value])
        said = f"error: expected {option} of at least {least}, got {value}"
        assert said in capsys.readouterr().err


def test_the_command_line_says_what_is_wrong(capsys):
    line = ["--config", "configs/quickstart.py", "--topology", "v5e:1x1"]
    for more, said in {
        ("--per-chip", "0"): "expected --per-chip of at least 1, got 0",
        ("--", "--nte.width", "3"): "unknown option --nte.width: did you mean",
        (): "expected --classes, --per-class and --image for glyphs train",
    }.items():
        with pytest.raises(SystemExit) as ended:
            plan.main([*line, *more])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "config", ["cifar100_layer_transfer", "cifar100_imprinting", "omniglot_1shot"]
)
def test_configs_of_every_experiment_are_read(config, capsys):
    with pytest.raises(SystemExit):
        plan.main(["--config", f"configs/{config}.py", "--topology", "v9:1x1"])
    assert "expected a topology such as v5e:4x4" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "topology"),
    [("libtpu", "v5e:2x2"), ("jax_plugins.xla_cuda13", "h100:1x4")],
)
def test_a_small_topology_is_compiled_for(tmp_path, module, topology):
    """With an extra: in a process of its own, as it changes how JAX starts."""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"needs {module}: pip install -e '.[plan-tpu]' or '.[plan-gpu]'")
    to, figure = tmp_path / "plan.json", tmp_path / "plan.png"
    line = [sys.executable, "tools/plan.py", "--config", "configs/omniglot_1shot.py"]
    line += ["--topology", topology.replace("2x2", "1x1").replace("1x4", "1x1")]
    line += [topology, "--json", str(to), "--figure", str(figure)]
    line += ["--", "--net.width", "8"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert ended.returncode == 0, ended.stderr
    one, four = json.loads(to.read_text())["plan"]
    assert (one["collectives"], four["collectives"]) == ({}, {"all-reduce": 1})
    assert four["flops"] == pytest.approx(one["flops"], rel=0.1)
    assert math.isfinite(four["step_s"]) and 0 < four["efficiency"] <= 1.1
    assert f"| {topology} " in ended.stdout and figure.stat().st_size > 1000
