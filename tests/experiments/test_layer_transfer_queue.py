"""The queue of a study of layer transfer, and the step of its populations."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from experiments.backbone import make_net
from experiments.layer_transfer_config import Config, Data, Grid, Network, Optim
from experiments.layer_transfer_members import groups, members
from experiments.layer_transfer_step import Program, Task, make_optimizer, make_step
from jaxfer import TrainState, freeze_rules, sharding, steps
from jaxfer.data import Crop

CONFIG = Config(
    data=Data("glyphs", classes=16, side=14),
    similar=Grid(
        splits=(0, 1),
        seeds=(0, 1),
        treatments=("base", "pixels", "BnB", "BnB+", "AnB", "AnB+"),
    ),
    dissimilar=Grid("family", splits=()),
    untrained=Grid("whole", splits=()),
    layers=(1, 6),
)
NET = Network(width=2, dense=8, dropout=0.2)
NAMES = [f"class{i}" for i in range(10)]


def _only(*treatments, **changes):
    """One split's networks alone."""
    similar = Grid(splits=(0,), treatments=treatments)
    return dataclasses.replace(CONFIG, similar=similar, **changes)


def test_members_come_after_what_they_are_copied_from():
    queue = members(CONFIG, NAMES, 7)
    assert len({m.name for m in queue}) == len(queue) == 8 * 10
    seen = set()
    for m in queue:
        if m.source is not None:
            assert f"{m.source.name}-base" in seen, m.name
        seen.add(m.name)
    for m in queue:
        if m.kind.startswith("A"):
            assert not set(m.source.classes) & set(m.target.classes)
            assert m.source[:2] == m.target[:2] and m.source.seed == m.target.seed
    made = groups(queue, 3, lambda target: 5)
    assert sum(map(len, made)) == len(queue)
    for group in made:
        assert len({(m.kind, m.n, len(m.target.classes)) for m in group}) == 1
    # Those that train on other numbers of examples share no program.
    apart = groups(queue, 3, lambda target: target.split)
    assert all(len({m.target.split for m in group}) == 1 for group in apart)


def test_layers_are_kept_where_there_are_so_many():
    queue = members(_only("base", "AnB-keep1", layers=(5, 6, 7)), NAMES, 7)
    assert sorted({m.n for m in queue if m.n}) == [5, 6]
    with pytest.raises(ValueError, match=r"found \['AnB-keep1'\] in similar.treatm"):
        members(_only("base", "AnB-keep1", layers=(7,)), NAMES, 7)


def test_a_members_draws_are_its_own_and_hang_on_its_name_alone():
    one, other = (
        members(_only(*kinds), NAMES, 7) for kinds in (["base"], ["base", "AnB"])
    )
    keys = {m.name: jax.random.key_data(m.key()).tolist() for m in other}
    assert len({tuple(k) for k in keys.values()}) == len(keys)
    for m in one:
        assert jax.random.key_data(m.key()).tolist() == keys[m.name]


@pytest.mark.parametrize("frozen", [(), ("conv1", "conv2")], ids=["whole", "frozen"])
def test_the_sweeps_own_step_says_nothing_to_other_devices(frozen, collectives, drawn):
    n, size = 40, 8
    program = Program(
        NET,
        Optim(learning_rate=0.05),
        Crop(),
        20,
        outputs=3,
        linear=False,
        n=n,
        num_steps=4,
        frozen=frozen,
        devices=size,
    )
    mesh = sharding.make_mesh(size)
    net = make_net(NET, 3)
    optimizer = make_optimizer(program)
    params, state = drawn(net, (8, 8, 1))
    rules = freeze_rules(params, frozen)
    one = steps.init_train_state(params, state, optimizer, rules=rules)
    stacked = steps.stack_population([one] * size)
    rest = sharding.place_members(tuple(stacked[1:]), mesh)
    begun = TrainState(sharding.place(stacked.step, mesh), *rest)
    task = Task(
        jnp.arange(n, dtype=jnp.int32),
        jnp.arange(n, dtype=jnp.int32) % 3,
        jnp.zeros((8, 8, 1)),
        jnp.ones(()),
        jax.random.key(0),
    )
    tasks = jax.tree.map(lambda x: jnp.stack([x] * size), task)
    data = (
        sharding.place(jnp.zeros((n, 8, 8, 1), jnp.uint8), mesh),
        sharding.place_members(tasks, mesh),
    )
    compiled = make_step(program).lower(begun, data, count=1).compile()
    assert not collectives(compiled)
