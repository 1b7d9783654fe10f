import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfer import checkpoint, sharding, steps, tensors
from jaxfer.checkpoint import Checkpoints
from jaxfer.types import TrainState


def _state(step: int = 0, fill: float = 0, data: int = 1) -> TrainState:
    params = {
        "a": {"w": jnp.full((4, 2), float(fill))},
        "b": {"w": jnp.full((3,), -float(fill))},
    }
    state = {"a": {}, "b": {"mean": jnp.full((3,), fill / 3)}}
    started = steps.init_train_state(
        params, state, optax.adam(1e-3), rules=[("a", False), ("**", True)]
    )
    started = started._replace(step=jnp.asarray(step, jnp.int32))
    return sharding.place(started, sharding.make_mesh(data))


def _assert_same(one: TrainState, other: TrainState) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_nothing_saved_is_none(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore(_state()) is None
        assert checkpoints.latest_step() is None


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    saved = _state(7, 0.1)
    meta = {"phase": "train", "best": None, "position": 700}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, saved, meta)
    with Checkpoints(tmp_path) as checkpoints:
        restored, again = checkpoints.restore(_state())
    _assert_same(restored, saved)
    assert again == meta


def test_the_two_newest_are_kept_and_the_newest_restored(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, _state(step, step))
    kept = sorted(p.name for p in (tmp_path / "checkpoints" / "last").iterdir())
    assert kept == ["3", "4"]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 4
        _assert_same(checkpoints.restore(_state())[0], _state(4, 4))


def test_best_and_last_are_apart(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(5, _state(5, 1.0), {"loss": 0.3}, kind="best")
        checkpoints.save(9, _state(9, 2.0))
    with Checkpoints(tmp_path) as checkpoints:
        best, meta = checkpoints.restore(_state(), kind="best")
        last, _ = checkpoints.restore(_state())
    assert (int(best.step), int(last.step), meta) == (5, 9, {"loss": 0.3})


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state = _state(1, 0.5)
    expected = jax.tree.map(np.array, state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)(state)
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(_state())
    jax.tree.map(np.testing.assert_array_equal, restored, expected)


def test_what_is_saved_beside_a_state_may_change_at_once(tmp_path):
    past = {}
    with Checkpoints(tmp_path) as checkpoints:
        for step in range(1, 6):
            checkpoints.save(step, _state(step), {"past": past})
            past[str(step)] = step
    with Checkpoints(tmp_path) as checkpoints:
        _, meta = checkpoints.restore(_state())
    assert meta["past"] == {str(step): step for step in range(1, 5)}


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8), (4, 2)])
def test_a_run_may_go_on_with_another_number_of_devices(tmp_path, before, after):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3, 0.7, before))
    with Checkpoints(tmp_path) as checkpoints:
        restored, _ = checkpoints.restore(_state(data=after))
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.device_get(restored),
        jax.device_get(_state(3, 0.7)),
    )
    assert len(restored.step.sharding.device_set) == after


def test_best_states_of_a_future_to_be_made_again_are_dropped(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 8):
            checkpoints.save(step, _state(step, step), kind="best")
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.drop_best_after(6)
        # What is there already is left as it is, so the dropped one has to be gone.
        checkpoints.save(8, _state(8, 0.5), kind="best")
    with Checkpoints(tmp_path) as checkpoints:
        _assert_same(checkpoints.restore(_state(), kind="best")[0], _state(8, 0.5))
        older = checkpoints.restore(_state(), kind="best", step=4)
        _assert_same(older[0], _state(4, 4))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, _state())
    other = steps.init_train_state(
        {"a": {"w": jnp.zeros((4, 3))}, "c": {"w": jnp.zeros(3)}},
        {"a": {}, "b": {"mean": jnp.zeros(3)}},
        optax.adam(1e-3),
        rules=[("a", False), ("**", True)],
    )
    message = (
        r"last/1 is of another network: frozen/a/w "
        r"\(expected float32\[4, 3\], got float32\[4, 2\]\), opt_state.* and \d+ more"
    )
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(ValueError, match=message):
            checkpoints.restore(other)


def test_several_threads_save_at_once(tmp_path):
    def save(name):
        with Checkpoints(tmp_path / name) as checkpoints:
            for step in range(1, 6):
                checkpoints.save(step, _state(step, step + len(name)), {"name": name})

    names = ["a", "bb", "ccc"]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(save, names))
    for name in names:
        with Checkpoints(tmp_path / name) as checkpoints:
            restored, meta = checkpoints.restore(_state())
        _assert_same(restored, _state(5, 5 + len(name)))
        assert meta == {"name": name}


def _flip(path, at):
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "first byte": lambda path: _flip(path, 0),
    "middle byte": lambda path: _flip(path, 0.5),
    "last byte": lambda path: _flip(path, 1),
    "half": lambda path: path.write_bytes(
        path.read_bytes()[: path.stat().st_size // 2]
    ),
    "gone": Path.unlink,
}
# The others take long.
QUICK = ("middle byte", "gone")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(damage, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, damage in DAMAGES.items()
    ],
)
def test_damage_anywhere_is_harmless_or_named_and_the_state_before_is_used(
    damage, tmp_path, capsys
):
    states = {step: _state(step, step / 7) for step in (3, 6)}
    with Checkpoints(tmp_path / "run") as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state, {"position": step})
    newest = tmp_path / "run" / "checkpoints" / "last" / "6"
    files = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    went_back = 0
    for n, name in enumerate(files):
        shutil.copytree(tmp_path / "run", tmp_path / str(n))
        damage(tmp_path / str(n) / newest.relative_to(tmp_path / "run") / name)
        with Checkpoints(tmp_path / str(n)) as checkpoints:
            known = checkpoints.meta()
            restored, again = checkpoints.restore(_state())
            step = int(restored.step)
            assert checkpoints.latest_step() == step
            # Its number is free for the state that the run makes again.
            checkpoints.save(6, states[6], {"position": 6})
        assert known == again == {"position": step}
        _assert_same(restored, states[step])
        shown = capsys.readouterr().out
        listed = (tmp_path / str(n) / "checkpoints" / "damaged" / "6").exists()
        if step == 6:
            assert not shown and not listed
        else:
            went_back += 1
            assert "last/6 is damaged: " in shown and listed, name
        with Checkpoints(tmp_path / str(n)) as checkpoints:
            _assert_same(checkpoints.restore(_state())[0], states[6])
    assert went_back >= 3


def test_no_bit_of_a_description_is_read_as_another(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3, 1.0), {"phase": "train", "best": [0.5, 2]})
    path = tmp_path / "checkpoints" / "last" / "3" / "meta" / "metadata"
    content = path.read_bytes()
    known = checkpoint._read_meta(path)
    for at in range(len(content)):
        for bit in range(8):
            path.write_bytes(
                content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
            )
            try:
                assert checkpoint._read_meta(path) == known
            except checkpoint.Damaged:
                pass


def test_without_an_intact_state_nothing_is_moved(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, _state(step))
    for path in (tmp_path / "checkpoints" / "last").rglob("metadata"):
        path.write_text("{}")
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(ValueError, match="an intact .*last/6 .*last/3 .*another --work"),
    ):
        checkpoints.meta()
    kept = sorted(p.name for p in (tmp_path / "checkpoints" / "last").iterdir())
    assert kept == ["3", "6"]


def test_states_without_checksums_are_still_read(tmp_path):
    """Those of versions before checksums."""
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3, 1.0), {"position": 3})
    path = tmp_path / "checkpoints" / "last" / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps({"run": meta["run"], "is": meta["is"]}))
    with Checkpoints(tmp_path) as checkpoints:
        _assert_same(checkpoints.restore(_state())[0], _state(3, 1.0))


def test_a_damaged_best_state_is_refused_when_the_run_goes_on(tmp_path):
    """Another one would be another result."""
    with Checkpoints(tmp_path) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, _state(step, step), kind="best")
        checkpoints.check_best()
    (tmp_path / "checkpoints/best/4/meta/metadata").unlink()
    with Checkpoints(tmp_path) as checkpoints:
        for call in (
            checkpoints.check_best,
            lambda: checkpoints.restore(_state(), kind="best", step=4),
        ):
            with pytest.raises(ValueError, match="best/4 is damaged: its description"):
                call()
        restored, _ = checkpoints.restore(_state(), kind="best", step=2)
    _assert_same(restored, _state(2, 2))


@pytest.mark.parametrize("lasting", [2, 9])
def test_an_error_that_passes_is_no_damage(tmp_path, monkeypatch, lasting):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (3, 6):
            checkpoints.save(step, _state(step))
    failures, real = [], Path.read_bytes

    def read(path):
        if path.name == "metadata" and len(failures) < lasting:
            failures.append(path)
            raise OSError(5, "Input/output error", str(path))
        return real(path)

    monkeypatch.setattr(tensors.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(Path, "read_bytes", read)
    with Checkpoints(tmp_path) as checkpoints:
        if lasting == 9:
            with pytest.raises(OSError, match="Input/output error"):
                checkpoints.meta()
        else:
            assert int(checkpoints.restore(_state())[0].step) == 6
    assert not (tmp_path / "checkpoints" / "damaged").exists()
