import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer import loop, steps
from jaxfer.checkpoint import Checkpoints
from jaxfer.runlog import RunLog, read_metrics
from jaxfer.stopping import Best

OPTIMIZER = optax.adam(0.1)


def _loss(params, state, step, data):
    """The noise depends on the step alone, so that a resumed run can be compared."""
    noise = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), (3,))
    value = ((params["w"] - data - noise) ** 2).sum()
    return value, (state, {"accuracy": noise[0]})


def _start():
    return steps.init_train_state({"w": jnp.ones(3)}, {}, OPTIMIZER)


def _fit(workdir, num_steps, *, loss=_loss, per_call=1, checkpoints=None, **options):
    state = _start()
    if checkpoints and (restored := checkpoints.restore(state)):
        state, _ = restored
    step = steps.compile_step(steps.make_train_step(loss, OPTIMIZER))
    start = int(state.step)
    with RunLog(workdir, start=start, num_steps=num_steps, every=1, show=False) as log:
        return loop.fit(
            step,
            state,
            jnp.asarray(0.5),
            num_steps=num_steps,
            log=log,
            checkpoints=checkpoints,
            steps_per_call=per_call,
            **options,
        )


def test_every_step_is_logged_once_and_in_order(tmp_path):
    state = _fit(tmp_path, 20)
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert int(state.step) == 20
    first = _loss({"w": jnp.ones(3)}, {}, 0, 0.5)[0]
    assert lines[0]["train/loss"] == pytest.approx(float(first), rel=1e-5)
    assert len({line["train/loss"] for line in lines}) == 20


@pytest.mark.parametrize("per_call", [1, 2, 5])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, per_call):
    whole = _fit(tmp_path / "whole", 20, per_call=per_call)
    for end in (10, 20):
        with Checkpoints(tmp_path / "parts") as checkpoints:
            parts = _fit(
                tmp_path / "parts",
                end,
                per_call=per_call,
                checkpoints=checkpoints,
                save_every=10,
            )
    jax.tree.map(np.testing.assert_array_equal, parts, whole)

    def losses(run):
        return [line["train/loss"] for line in read_metrics(tmp_path / run)]

    assert losses("parts") == losses("whole")


def test_the_end_is_not_saved_where_the_caller_keeps_it(tmp_path):
    ended = []
    for _ in range(2):
        # The second time from step 20 on.
        with Checkpoints(tmp_path) as checkpoints:
            how = {"checkpoints": checkpoints, "save_every": 10, "save_last": False}
            ended.append(_fit(tmp_path, 25, **how))
            assert checkpoints.latest_step() == 20
    assert int(ended[1].step) == 25
    jax.tree.map(np.testing.assert_array_equal, *ended)


def _handlers():
    return [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_request_saves_and_says_where(tmp_path, signum):
    handlers = _handlers()

    def stop_at_12(state):
        if int(state.step) == 12:
            os.kill(os.getpid(), signum)
        return {}

    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(KeyboardInterrupt, match="stopped at step 12, saved"):
            _fit(
                tmp_path,
                50,
                checkpoints=checkpoints,
                save_every=100,
                evaluate=stop_at_12,
                eval_every=4,
            )
    assert _handlers() == handlers
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 12
        resumed = _fit(tmp_path, 50, checkpoints=checkpoints, save_every=100)
    jax.tree.map(np.testing.assert_array_equal, resumed, _fit(tmp_path / "whole", 50))


@pytest.mark.parametrize("per_call", [1, 5])
def test_a_loss_that_is_not_finite_stops_and_is_never_saved(tmp_path, per_call):
    def loss(params, state, step, data):
        value, rest = _loss(params, state, step, data)
        return jnp.where(step == 17, jnp.nan, value), rest

    message = r"a finite loss of step 18 \(episode 17\), got nan.* is of step 15"
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=message):
            _fit(
                tmp_path,
                40,
                loss=loss,
                per_call=per_call,
                checkpoints=checkpoints,
                save_every=5,
            )
        assert checkpoints.latest_step() == 15
    assert [line["step"] for line in read_metrics(tmp_path)] == list(range(1, 18))


def test_evaluation_sees_the_state_of_its_step(tmp_path):
    seen = []

    def evaluate(state):
        seen.append(int(state.step))
        return {"val/w": float(state.trainable["w"][0])}

    _fit(tmp_path, 12, evaluate=evaluate, eval_every=4)
    assert seen == [4, 8, 12]
    lines = [line for line in read_metrics(tmp_path) if "val/w" in line]
    assert [line["step"] for line in lines] == [4, 8, 12]


def test_no_call_goes_past_what_is_due(tmp_path):
    """Whatever the steps per call, and even if their number changes on resume."""
    seen = []
    with Checkpoints(tmp_path / "parts") as checkpoints:
        for end, per_call in ((9, 4), (23, 5)):
            parts = _fit(
                tmp_path / "parts",
                end,
                per_call=per_call,
                checkpoints=checkpoints,
                save_every=10,
                evaluate=lambda state: seen.append(int(state.step)) or {},
                eval_every=3,
            )
        kept = sorted(checkpoints._managers["last"].all_steps())
    assert kept == [20, 23]
    assert seen == [3, 6, 9, 12, 15, 18, 21]
    whole = _fit(tmp_path / "whole", 23)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), parts, whole)
    steps_seen = [line["step"] for line in read_metrics(tmp_path / "parts")]
    assert sorted(set(steps_seen)) == list(range(1, 24))


@pytest.mark.parametrize(
    ("num_steps", "per_call", "save_every", "eval_every", "expected"),
    [
        (47, 4, 10, 6, {1, 4}),
        (13, 5, 100, 0, {1, 5}),
        (24, 4, 0, 8, {4}),
        # Never 7 steps between what is due at 6, 10, 12, 18, 20, 24, ...
        (47, 7, 10, 6, {1}),
        (5, 9, 3, 2, {1}),
    ],
)
def test_at_most_two_programs_are_compiled(
    tmp_path, num_steps, per_call, save_every, eval_every, expected
):
    lengths, evaluated, due = [], [], []
    step = steps.compile_step(steps.make_train_step(_loss, OPTIMIZER))

    def watched(train_state, data, count):
        start = int(train_state.step)
        lengths.append(count)
        every = [n for n in (save_every, eval_every) if n]
        due.extend(
            at for at in range(start + 1, start + count) for n in every if at % n == 0
        )
        return step(train_state, data, count=count)

    with (
        RunLog(tmp_path, num_steps=num_steps, every=1, show=False) as log,
        Checkpoints(tmp_path) as checkpoints,
    ):
        state = loop.fit(
            watched,
            _start(),
            jnp.asarray(0.5),
            num_steps=num_steps,
            log=log,
            checkpoints=checkpoints,
            steps_per_call=per_call,
            save_every=save_every,
            evaluate=lambda state: evaluated.append(int(state.step)) or {},
            eval_every=eval_every,
        )
    assert int(state.step) == sum(lengths) == num_steps
    assert set(lengths) == expected
    assert step.compilations == len(expected) <= 2
    assert due == [], "a call went past a save or an evaluation"
    if eval_every:
        every = range(eval_every, num_steps + 1, eval_every)
        assert evaluated == [*every]


def test_a_run_adds_up_the_compilations_of_its_phases(tmp_path):
    step, other = (
        steps.compile_step(steps.make_train_step(_loss, OPTIMIZER)) for _ in range(2)
    )
    options = {"steps_per_call": 4, "save_every": 5, "every": 1}
    with loop.Run(tmp_path, fingerprint="f", **options) as run:
        assert run.compilations == 0
        for name, called, expected in (
            ("a", step, 2),
            ("b", step, 2),
            ("c", other, 4),
        ):
            run.phase(name, called, _start(), jnp.asarray(0.5), num_steps=7)
            assert run.compilations == expected
    with loop.Run(tmp_path, fingerprint="f", **options) as run:
        # Its end was saved: nothing is left to do, and to compile.
        run.phase("a", step, _start(), jnp.asarray(0.5), num_steps=7)
        assert run.compilations == 0


def test_a_stop_at_the_very_end_is_not_swallowed(tmp_path):
    def stop(state):
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    with pytest.raises(KeyboardInterrupt, match="stopped at step 8, saved"):
        _fit(tmp_path, 8, evaluate=stop, eval_every=8)


def test_a_gradient_that_is_not_finite_is_found_before_its_step_is_saved(tmp_path):
    def loss(params, state, step, data):
        value, rest = _loss(params, state, step, data)
        # The root of 0 is 0 and its slope is infinite.
        return value + jnp.sqrt(jnp.where(step == 9, params["w"][0] * 0, 1.0)), rest

    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            ValueError, match="a finite grad_norm of step 10 .*, got nan"
        ):
            _fit(tmp_path, 10, loss=loss, checkpoints=checkpoints, save_every=5)
        assert checkpoints.latest_step() == 5


def _run(workdir, schedule, *, stop=None, patience=2, num_steps=100, log_every=1):
    """Two phases: validation losses as scheduled, then a fresh start."""
    step = steps.compile_step(steps.make_train_step(_loss, OPTIMIZER))
    seen = []

    def evaluate(state):
        seen.append(int(state.step))
        if stop == seen[-1]:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"val/loss": schedule[int(state.step) // 4 - 1]}

    with loop.Run(workdir, fingerprint="f", save_every=3, every=log_every) as run:
        phase = functools.partial(run.phase, data=jnp.asarray(0.5))
        best = Best(every=4, patience=patience)
        searched = phase(
            "train",
            step,
            _start(),
            num_steps=num_steps,
            evaluate=evaluate,
            best=best,
        )
        kept = run.best(_start())
        again = phase("retrain", step, _start(), num_steps=searched.best_step + 1)
    return searched, kept, again, seen


SCHEDULE = [5.0, 3.0, 4.0, 2.0, 2.0, 2.5, 7.0, 1.0]


def test_patience_bears_so_many_evaluations_and_the_best_state_is_kept(tmp_path):
    searched, kept, again, seen = _run(tmp_path, SCHEDULE)
    # Best at the fourth; the fifth only equals it; the seventh is one too many.
    assert (searched.best_step, searched.steps) == (16, 28)
    assert seen == [4, 8, 12, 16, 20, 24, 28]
    whole = _fit(tmp_path / "whole", 16)
    jax.tree.map(np.testing.assert_array_equal, kept, whole)
    assert again.steps == 17
    fresh = _fit(tmp_path / "fresh", 17)
    jax.tree.map(np.testing.assert_array_equal, again.train_state, fresh)
    lines = read_metrics(tmp_path)
    retrained = [line["step"] for line in lines if "retrain/loss" in line]
    assert retrained == list(range(29, 46))
    assert [line["step"] for line in lines if "val/loss" in line] == seen


def test_patience_has_a_cap(tmp_path):
    searched, _, _, _ = _run(tmp_path, SCHEDULE, patience=100, num_steps=22)
    assert (searched.best_step, searched.steps) == (16, 22)


@pytest.mark.parametrize("stop", [16, 28])
def test_a_run_of_phases_resumes_where_it_stopped(tmp_path, stop):
    whole = _run(tmp_path / "whole", SCHEDULE)
    with pytest.raises(KeyboardInterrupt, match=f"stopped at step {stop}, saved"):
        _run(tmp_path / "parts", SCHEDULE, stop=stop)
    parts = _run(tmp_path / "parts", SCHEDULE)
    # No evaluation is made twice, and none is left out.
    assert parts[3] == [n for n in whole[3] if n > stop]
    jax.tree.map(np.testing.assert_array_equal, parts[1], whole[1])
    jax.tree.map(
        np.testing.assert_array_equal, parts[2].train_state, whole[2].train_state
    )
    assert parts[0][1:] == whole[0][1:]
    again = _run(tmp_path / "parts", SCHEDULE)
    assert again[0].train_state is None and again[0][1:] == whole[0][1:]
    assert again[3] == []

    def logged(run):
        return [
            {k: v for k, v in line.items() if k != "wall_s"}
            for line in read_metrics(tmp_path / run)
        ]

    assert logged("parts") == logged("whole")


@pytest.mark.parametrize("stop", [None, 28])
def test_lines_average_the_steps_of_one_phase_alone(tmp_path, stop):
    """A phase that patience ends between two lines writes what it has."""
    _run(tmp_path / "each", SCHEDULE)
    if stop:
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path / "fives", SCHEDULE, log_every=5, stop=stop)
    _run(tmp_path / "fives", SCHEDULE, log_every=5)
    each = {
        line["step"]: line.get("train/loss", line.get("retrain/loss"))
        for line in read_metrics(tmp_path / "each")
        if "val/loss" not in line
    }
    lines = [
        line for line in read_metrics(tmp_path / "fives") if "val/loss" not in line
    ]
    # The first phase has steps 1 to 28, the second 17 more.
    ends = [5, 10, 15, 20, 25, 28, 33, 38, 43, 45]
    assert [line["step"] for line in lines] == ends
    for line, start, end in zip(lines, [0, *ends], ends, strict=False):
        name = "train/loss" if end <= 28 else "retrain/loss"
        mean = np.mean([each[step] for step in range(start + 1, end + 1)])
        assert line[name] == pytest.approx(mean, rel=1e-6), end


def test_a_validation_loss_that_is_not_finite_stops(tmp_path):
    with pytest.raises(ValueError, match="a finite val/loss after step 8, got nan"):
        _run(tmp_path, [1.0, np.nan])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 6


def test_a_phase_goes_on_for_longer_unless_a_later_one_has_begun(tmp_path):
    """Validation too: the best state so far and its patience are known again."""
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "cut", SCHEDULE, num_steps=12, stop=12)
    longer = _run(tmp_path / "cut", SCHEDULE)
    whole = _run(tmp_path / "whole", SCHEDULE)
    assert longer[0][1:] == whole[0][1:] == (28, 16)
    jax.tree.map(
        np.testing.assert_array_equal, longer[2].train_state, whole[2].train_state
    )
    # Patience ended it at 28 of 100: a higher limit changes nothing.
    assert _run(tmp_path / "whole", SCHEDULE, num_steps=200)[0][1:] == (28, 16)
    _run(tmp_path / "short", SCHEDULE, num_steps=12)
    message = "expected 12 steps of train as before, since a later phase has begun, got"
    with pytest.raises(ValueError, match=message):
        _run(tmp_path / "short", SCHEDULE)


def test_phases_go_on_with_another_partition_and_a_resume_finds_its_own(tmp_path):
    """Gradual unfreezing: the state of each phase has another shape."""
    params = {"a": {"w": jnp.ones(3)}, "b": {"w": jnp.ones(2)}}

    def loss(params, state, step, data):
        value = sum(((p["w"] - data - step) ** 2).sum() for p in params.values())
        return value, (state, {})

    plan = [(6, [("a", False), ("**", True)]), (12, [("**", True)])]
    step = steps.compile_step(steps.make_train_step(loss, OPTIMIZER))

    def run(workdir, until=99):
        state = steps.init_train_state(
            jax.tree.map(jnp.copy, params), {}, OPTIMIZER, rules=plan[0][1]
        )
        with loop.Run(workdir, fingerprint="x", save_every=2, every=1) as going:
            for i, (end, rules) in enumerate(plan):
                if i:
                    state = steps.repartition(state, OPTIMIZER, rules)
                end = min(end, until)
                data = jnp.asarray(0.5)
                ended = going.phase(f"p{i}", step, state, data, num_steps=end)
                state = ended.train_state or state
                if end == until:
                    return None
        return state

    whole = run(tmp_path / "whole")
    assert int(whole.step) == 12
    lines = read_metrics(tmp_path / "whole")
    assert [line["step"] for line in lines] == list(range(1, 13))
    for until in (4, 8):
        run(tmp_path / "parts", until)
    resumed = run(tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)
    again = [line["step"] for line in read_metrics(tmp_path / "parts")]
    assert again == list(range(1, 13))
