"""Members of a layer-transfer study, and what its report says of made-up accuracies."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.layer_transfer import report
from experiments.layer_transfer.claims import claims
from experiments.layer_transfer.config import Config, Data, Grid
from experiments.layer_transfer.members import transfers
from experiments.layer_transfer.report import repetitions, summaries, tidy_rows
from jaxfer.claims import judge, select
from jaxfer.config import to_json
from jaxfer.keys import key_of
from jaxfer.stats import Summary

EMPTY = Grid("whole", splits=())
CONFIG = Config(
    data=Data("glyphs"),
    similar=Grid(
        splits=(0, 1),
        seeds=(0, 1),
        treatments=("base", "pixels", "base+", "BnB", "BnB+", "AnB", "AnB+"),
    ),
    dissimilar=EMPTY,
    untrained=EMPTY,
    layers=(1, 4, 7),
)
NAMES = [f"class{i}" for i in range(10)]


def _only(*treatments, **changes):
    similar = Grid(splits=(0,), treatments=treatments)
    return dataclasses.replace(CONFIG, similar=similar, **changes)


def test_members_come_after_what_they_are_copied_from():
    queue = transfers(CONFIG, NAMES, 7)
    # 2 splits, 2 seeds, 2 halves; base, pixels and base+, and four at three n.
    assert len({m.name for m in queue}) == len(queue) == 8 * (3 + 4 * 3)
    seen = set()
    for m in queue:
        assert m.source is None or m.source in seen, m.name
        seen.add(m.name)
    for m in queue:
        if m.kind.startswith("A"):
            assert not set(m.other.classes) & set(m.target.classes)
            assert m.other[:2] == m.target[:2] and m.other.seed == m.target.seed
            assert m.source == f"{m.other.name}-base"
        elif m.kind.startswith("B") or m.kind == "base+":
            assert m.source == f"{m.target.name}-base"
        else:
            assert m.source is None
    # Both halves together are all classes, and another split has other halves.
    halves = {m.target.name: set(m.target.classes) for m in queue}
    assert halves["similar-0A-seed0"] | halves["similar-0B-seed0"] == {*NAMES}
    assert halves["similar-0A-seed0"] == halves["similar-0A-seed1"]
    assert halves["similar-0A-seed0"] != halves["similar-1A-seed0"]


def test_layers_are_kept_where_there_are_so_many():
    queue = transfers(_only("base", "AnB-keep1", layers=(5, 6, 7)), NAMES, 7)
    assert sorted({m.n for m in queue if m.n}) == [5, 6]
    with pytest.raises(ValueError, match=r"similar.treatments .* got \['AnB-keep1'\]"):
        transfers(_only("base", "AnB-keep1", layers=(7,)), NAMES, 7)
    with pytest.raises(ValueError, match=r"at most 4, the number .* got \[7\]"):
        transfers(_only("base", layers=(1, 7)), NAMES, 4)


def test_a_members_draws_depend_on_its_name_alone():
    one, other = (
        transfers(_only(*kinds), NAMES, 7) for kinds in (["base"], ["base", "AnB"])
    )
    keys = {m.name: jax.random.key_data(key_of(m.name)).tolist() for m in other}
    assert len({tuple(k) for k in keys.values()}) == len(keys)
    assert {m.name for m in one} < keys.keys()
    assert [m.target for m in one] == [m.target for m in other if m.kind == "base"]


# --- Accuracies as the paper found them.


def _level(m):
    if m.kind in ("base", "pixels", "base+"):
        return {"base": 60.0, "pixels": 20.0, "base+": 60.1}[m.kind]
    dip = {1: 0.0, 4: 2.0, 7: 0.0}[m.n]
    lost = {1: 0.0, 4: 3.0, 7: 9.0}[m.n]
    return 60.0 + {"BnB": -dip, "AnB": -lost, "BnB+": 1.0, "AnB+": 2.0}[m.kind]


def _records(queue, rng, noise=0.1):
    """Targets differ by 10 points; networks of one target by little."""
    hard = {m.target.name: rng.normal() * 10 for m in queue}
    found = {}
    for m in queue:
        value = _level(m) + hard[m.target.name] + noise * rng.normal()
        found[m.name] = {
            "accuracy": value,
            "balanced_accuracy": value - 1,
            "train_accuracy": value + 20,
        }
    return found


@pytest.fixture
def paper(rng):
    queue = transfers(CONFIG, NAMES, 7)
    records = _records(queue, rng)
    return queue, records, tidy_rows(queue, records)


def test_rows_are_tidy(paper):
    queue, records, rows = paper
    own = select(rows, member="similar-1B-seed0-AnB-n4")
    name = "similar-1B-seed0"
    assert {row["metric"]: row["value"] for row in own} == {
        **records[f"{name}-AnB-n4"],
        "minus_base": records[f"{name}-AnB-n4"]["accuracy"]
        - records[f"{name}-base"]["accuracy"],
    }
    for row in own:
        assert {k: row[k] for k in ("grid", "split", "half", "seed", "n")} == {
            **{"grid": "similar", "split": 1, "half": "B", "seed": 0, "n": 4}
        }
        assert row["treatment"] == "AnB" and row["target"] == name
    # The two losses add up to what frozen transfer loses.
    (broken,), (special,) = (
        select(rows, treatment=t, target=name, n=4, metric="loss")
        for t in ("co_adaptation", "specificity")
    )
    lost = select(own, metric="minus_base")[0]["value"]
    assert broken["value"] + special["value"] == pytest.approx(-lost)
    assert len(rows) == 4 * len(queue) + 2 * 8 * 3


def test_means_are_over_repetitions_and_not_over_halves(paper):
    """Both halves of a split share base networks: they are one repetition."""
    _, records, rows = paper
    found = summaries(rows)
    for metric in ("accuracy", "minus_base"):
        each = [
            np.mean(
                [
                    select(
                        rows,
                        member=f"similar-{split}{half}-seed{seed}-AnB-n7",
                        metric=metric,
                    )[0]["value"]
                    for half in "AB"
                ]
            )
            for split in (0, 1)
            for seed in (0, 1)
        ]
        entry = found[f"similar/n7/AnB/{metric}"]
        assert entry["n"] == 4 and entry["over"] == "splits and seeds"
        assert entry["mean"] == pytest.approx(np.mean(each))
        sd = np.std(each, ddof=1)
        # t(3) at 97.5%.
        assert entry["ci95"] == pytest.approx(3.18245 * sd / 2, rel=1e-4)
        one = select(rows, treatment="AnB", n=7, metric=metric)
        assert [*repetitions(one).values()] == pytest.approx(each)
    assert "similar/n0/base/minus_base" not in found
    # As in the paper, without pairs: the spread between targets is in it.
    loose = found["similar/n7/AnB/minus_base_unpaired"]
    assert loose["mean"] == pytest.approx(found["similar/n7/AnB/minus_base"]["mean"])
    assert loose["ci95"] > 10 * found["similar/n7/AnB/minus_base"]["ci95"]
    excess = found["similar/n7/decoupling/excess"]
    assert excess["mean"] == pytest.approx(9, abs=0.5)
    assert excess["dominant"] == "specificity"


def test_the_findings_of_the_paper_are_seen_where_they_are(paper):
    _, _, rows = paper
    found = judge(rows, claims((1, 4, 7)))
    seen = {name: row["seen"] for name, row in found.items() if row["expects"]}
    assert all(seen.values()), seen
    assert {name.split("/")[0] for name in seen} == set("1234")
    assert found["1/n4"]["difference"]["mean"] == pytest.approx(-2, abs=0.3)
    assert found["1/n4"]["difference"]["n"] == 4
    assert found["3/falls"]["difference"]["mean"] == pytest.approx(-9, abs=0.3)
    assert found["4/base"]["difference"]["mean"] == pytest.approx(2.0, abs=0.3)
    # Nobody claims anything of logistic regression.
    assert found["0/pixels"]["seen"] is None


def test_what_is_the_other_way_round_is_not_seen_and_noise_is_undecided(rng):
    queue = transfers(CONFIG, NAMES, 7)
    records = _records(queue, rng)
    for m in queue:
        if (m.kind, m.n) == ("AnB", 7):
            records[m.name]["accuracy"] += 20
        if (m.kind, m.n) == ("BnB", 4):
            records[m.name]["accuracy"] += 30 * rng.normal()
    found = judge(tidy_rows(queue, records), claims((1, 4, 7)))
    assert found["3/falls"]["seen"] is False
    assert found["1/n4"]["seen"] is None


def test_dissimilar_halves_are_compared_unpaired(rng):
    grids = {
        "dissimilar": Grid("random", (0,), (0, 1, 2), ("base", "AnB")),
        "untrained": Grid("whole", (0,), (0, 1), ("base", "random")),
    }
    config = dataclasses.replace(CONFIG, **grids)
    queue = transfers(config, NAMES, 7)
    similar = [m for m in queue if m.kind != "random"]
    records = _records(similar, rng)
    for m in queue:
        far = {"dissimilar": 5.0 * m.n, "untrained": 8.0 * m.n}.get(m.target.grid, 0)
        if m.kind == "random":
            base = records[f"{m.target.name}-base"]["accuracy"]
            records[m.name] = dict.fromkeys(
                ("accuracy", "balanced_accuracy", "train_accuracy"), base - far
            )
            records[m.name]["accuracy"] += 0.1 * rng.normal()
        elif m.n:
            records[m.name]["accuracy"] -= far
    found = judge(tidy_rows(queue, records), claims((1, 4, 7)))
    for n in (1, 4, 7):
        falls = found[f"5/falls/n{n}"]
        assert falls["seen"] is True and falls["difference"]["n"] == 3
        assert falls["difference"]["mean"] == pytest.approx(-5 * n, abs=0.5)
        above = found[f"5/random/n{n}"]["difference"]
        lost = {1: 0.0, 4: 3.0, 7: 9.0}[n]
        assert above["mean"] == pytest.approx(3 * n - lost, abs=0.5)


def test_one_n_or_none_makes_no_trend():
    names = [claim.name for claim in claims((7,))]
    assert "3/falls" not in names and "3/specificity" in names
    assert not [name for name in names if name[0] in "12"]
    assert claims(()) == []


def test_the_table_of_boosts(paper):
    _, _, rows = paper
    gains = {k: m for k, m in summaries(rows).items() if k.endswith("/gain")}
    assert [*gains] == [
        f"similar/n1 to 7/AnB+ - {name}/gain" for name in ("base", "base+", "BnB+")
    ]
    found = judge(rows, claims((1, 4, 7)))["4/base"]["difference"]["mean"]
    assert gains["similar/n1 to 7/AnB+ - base/gain"]["mean"] == pytest.approx(found)
    bases = summaries(select(rows, treatment="base"))
    assert not [name for name in bases if name.endswith("/gain")]


def test_tables_show_each_metric_once(paper):
    _, _, rows = paper
    metrics = summaries(rows)
    shown = report.tables({"config": to_json(CONFIG), "metrics": metrics})
    minus, bases, *_ = shown.values()
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in minus.splitlines()]
    assert [line[0] for line in lines[2:]] == ["1", "4", "7"]
    at = metrics["similar/n4/AnB/minus_base"]
    expected = str(Summary(at["mean"], at["ci95"], at["n"]))
    assert lines[3][lines[0].index("AnB")] == expected
    named = [line.split("|")[2].strip() for line in bases.splitlines()[2:]]
    assert named == ["base", "base+", "pixels"]
