"""Grids of runs, and their comparison over seeds and paired episodes."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from jaxfer.tensors import digest
from tools import compare, grid, result_tables

ROOT = Path(__file__).resolve().parents[2]
VARY = [["task.way", "5", "20"], ["seed", "0", "1"]]


def test_a_grid_is_a_product_without_what_is_skipped():
    runs = [*grid.combinations(VARY, [["task.way=20", "seed=1"]])]
    assert [grid.folder_of(run) for run in runs] == [
        *("way5_seed0", "way5_seed1", "way20_seed0")
    ]
    assert [*grid.combinations([], [])] == [{}]
    with pytest.raises(ValueError, match="values for --vary seed, got none"):
        next(grid.combinations([["seed"]], []))
    with pytest.raises(ValueError, match="settings of --vary in --skip, got 'seed=7'"):
        next(grid.combinations(VARY, [["seed=7"]]))


def test_ctrl_c_waits_for_the_run_to_save(tmp_path):
    """The signal goes to the whole group, as from a terminal."""
    child = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    time.sleep(1)\n    sys.exit(130)\n"
    )
    parent = (
        f"import signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        # What runs in the background may ignore the signal from the start.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tools import grid\n"
        f"sys.exit(grid.call([sys.executable, '-c', {child!r}]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 130


def test_each_run_is_a_command(tmp_path, monkeypatch, capsys):
    config = tmp_path / "config.py"
    config.write_text('"""Run: python -m experiments.prototypes --config X"""')
    lines, codes = [], iter([0, 3, 0, 0])
    monkeypatch.setattr(grid, "call", lambda line: lines.append(line) or next(codes))
    words = [str(config), "--workdir", str(tmp_path / "runs")]
    words += [x for values in VARY for x in ("--vary", *values)]
    assert grid.main([*words, "--", "--data.dir", "D"]) == 1
    assert "2 of 4: " in capsys.readouterr().out and len(lines) == 4
    first = [*map(str, lines[0])]
    assert first[:5] == [
        *(sys.executable, "-m", "experiments.prototypes", "--config", str(config))
    ]
    assert first[-6:] == ["--task.way", "5", "--seed", "0", "--data.dir", "D"]
    with pytest.raises(SystemExit, match="2"):
        grid.main([*words, "--vary", "way", "5", "5"])
    monkeypatch.setattr(grid, "call", lambda line: 130)
    assert grid.main(words) == 130
    config.write_text("nothing")
    with pytest.raises(SystemExit, match="2"):
        grid.main(words)


def write_run(folder, seed, way, values, **more):
    folder.mkdir()
    options = {"task.way": way, "seed": seed, "data.test": "test", "test.query": 15}
    options |= {"test.episodes": 6, "data.dir": str(folder)} | more
    facts = {"experiment": "prototypes", "config": options, "seed": seed}
    facts |= {"dataset_fingerprint": {"test": "f"}, "episodes_sha256": digest(values)}
    (folder / "result.json").write_text(json.dumps(facts))
    np.savez(folder / "episodes.npz", **values)
    return str(folder)


def test_runs_are_compared_over_seeds_and_episodes(tmp_path, rng, capsys):
    place = "test/5way_1shot/{}/accuracy"
    made, runs = {}, []
    for way in (5, 20):
        for seed in (0, 1):
            values = {
                place.format(name): rng.normal(50 + way, 5, 6)
                for name in ("prototypes", "nearest")
            }
            made[way, seed] = values
            runs.append(write_run(tmp_path / f"{way}{seed}", seed, way, values))
    to = tmp_path / "rows.json"
    assert compare.main([*runs, "--json", str(to)]) == 0
    shown = capsys.readouterr().out
    rows = {
        (row["setting"], row["metric"].split("/")[2]): row
        for row in json.loads(to.read_text())["rows"]
    }
    assert len(rows) == 4 and "way 20" in shown
    row = rows["way 20", "prototypes"]
    parts = [made[20, seed][place.format("prototypes")] for seed in (0, 1)]
    every = np.concatenate(parts)
    half = scipy_stats.t.ppf(0.975, 11) * every.std(ddof=1) / np.sqrt(12)
    assert row["mean"] == pytest.approx(every.mean())
    assert row["ci95_episodes"] == pytest.approx(half)
    means = [part.mean() for part in parts]
    spread = scipy_stats.t.ppf(0.975, 1) * np.std(means, ddof=1) / np.sqrt(2)
    assert row["ci95_seeds"] == pytest.approx(spread)
    gaps = every - np.concatenate(
        [made[5, seed][place.format("prototypes")] for seed in (0, 1)]
    )
    assert row["difference"] == pytest.approx(gaps.mean())
    half = scipy_stats.t.ppf(0.975, 11) * gaps.std(ddof=1) / np.sqrt(12)
    assert row["difference_ci95_episodes"] == pytest.approx(half)
    # Within the first setting, other methods are compared with its own first one.
    assert "difference" not in rows["way 5", "prototypes"]
    own = np.concatenate(
        [
            made[5, seed][place.format("nearest")]
            - made[5, seed][place.format("prototypes")]
            for seed in (0, 1)
        ]
    )
    assert rows["way 5", "nearest"]["difference"] == pytest.approx(own.mean())
    settings = compare.settings_of([compare.read_run(tmp_path / "50")])
    assert [*settings] == ["all runs"]
    other = compare.compare(
        compare.settings_of([compare.read_run(tmp_path / x) for x in ("50", "200")]),
        "way 20",
    )
    assert "difference" not in other[2]


def test_settings_that_differ_in_one_option_are_compared(
    tmp_path, rng, capsys, monkeypatch
):
    """Every pair of runs on the same episodes, and all of them together."""
    place = "test/5way_1shot/{}/accuracy"
    made, runs = {}, []
    kinds = ("matching", "prototypes")
    for way, kind, seed in itertools.product((5, 20), kinds, (0, 1)):
        values = {place.format(x): rng.normal(50 + way, 5, 6) for x in kinds}
        made[way, kind, seed] = values[place.format(kind)]
        folder = tmp_path / f"{way}{kind}{seed}"
        runs.append(write_run(folder, seed, way, values, method=kind))
    to, figure = tmp_path / "rows.json", tmp_path / "bars.png"
    asked = ["--by", "task.way", "--by", "method", "--json", str(to)]
    assert compare.main([*runs, *asked, "--figure", str(figure)]) == 0
    found = json.loads(to.read_text())["by"]
    rows = {(row["setting"], row["task"]): row for row in found["task.way"]}
    assert [*rows] == [
        ("method matching", "5way_1shot"),
        ("method prototypes", "5way_1shot"),
        ("all", "5way_1shot"),
    ]
    gaps = [
        made[20, kind, seed] - made[5, kind, seed] for kind in kinds for seed in (0, 1)
    ]
    row = rows["all", "5way_1shot"]
    # The pairs of a seed share its episodes, so they are averaged first.
    assert row["pair"] == "20 - 5" and row["runs"] == 4 and row["n"] == 12
    assert row["difference"] == pytest.approx(np.mean(gaps))
    by_seed = np.reshape(gaps, (2, 2, 6)).mean(axis=0)
    spread = scipy_stats.t.ppf(0.975, 1) * np.std(by_seed.mean(1), ddof=1) / 2**0.5
    assert row["ci95_seeds"] == pytest.approx(spread)
    half = scipy_stats.t.ppf(0.975, 11) * np.std(by_seed, ddof=1) / 12**0.5
    assert row["ci95_episodes"] == pytest.approx(half)
    # Each run is compared by the method that it trained.
    (row,) = [x for x in found["method"] if x["setting"] == "way 5"]
    gaps = [made[5, "prototypes", seed] - made[5, "matching", seed] for seed in (0, 1)]
    assert row["difference"] == pytest.approx(np.mean(gaps))
    assert "prototypes - matching" in capsys.readouterr().out
    assert figure.stat().st_size > 1000
    # A row per setting, with the method that it trained.
    kept = json.loads(to.read_text())["rows"]
    table = compare.trained_table(kept).splitlines()
    assert table[0].split() == ["|", "setting", "|", "5-way", "1-shot", "|"]
    mean = np.mean([made[20, "matching", seed] for seed in (0, 1)])
    (line,) = [x for x in table if "way 20, method matching" in x]
    assert len(table) == 6 and f" {mean:.2f} ± " in line
    monkeypatch.setattr(result_tables, "DATA", tmp_path / "kept")
    assert result_tables.keep(to, "grid").is_file()
    for title, made_table in {
        "Accuracy": "\n".join(table),
        "method": compare.table_by(found["method"]),
    }.items():
        page = f"<!-- table grid: {title} -->\n<!-- end of table -->"
        assert made_table in result_tables.written(page)
    with pytest.raises(ValueError, match="option of the comparison, got 'seed'"):
        result_tables.written("<!-- table grid: seed -->\n<!-- end of table -->")
    with pytest.raises(SystemExit, match="2"):
        compare.main([*runs, "--by", "distance"])
    assert "that differ in distance alone" in capsys.readouterr().err


def test_runs_on_other_episodes_have_no_difference(tmp_path, rng):
    values = {"test/5way_1shot/prototypes/accuracy": rng.normal(size=6)}
    paths = [
        write_run(tmp_path / "a", 0, 5, values),
        write_run(tmp_path / "b", 0, 20, values, **{"test.grouped": True}),
    ]
    read = [compare.read_run(tmp_path / x) for x in ("a", "b")]
    rows = compare.compare(compare.settings_of(read))
    assert len(paths) == len(rows) == 2
    assert not any("difference" in row for row in rows)


def test_bad_runs_are_refused(tmp_path, rng, capsys):
    values = {"test/5way_1shot/prototypes/accuracy": rng.normal(size=6)}
    one = write_run(tmp_path / "a", 0, 5, values)
    two = write_run(tmp_path / "b", 0, 5, values)

    def refused(*words):
        with pytest.raises(SystemExit, match="2"):
            compare.main([*words])
        return capsys.readouterr().err

    assert "one run per seed of 'all runs', got [0, 0]" in refused(one, two)
    assert "as the baseline, got 'x'" in refused(one, "--baseline", "x")
    whole = (tmp_path / "b" / "episodes.npz").read_bytes()
    for damaged in (b"damaged", b"", whole[:-30]):
        (tmp_path / "b" / "episodes.npz").write_bytes(damaged)
        assert "episodes.npz cannot be read" in refused(two)
    assert "result.json" in refused(str(tmp_path / "c"))


def test_damaged_accuracies_are_never_believed(tmp_path, rng):
    """Any flipped bit is named or changes nothing, and so is another file."""
    values = {"test/5way_1shot/prototypes/accuracy": rng.normal(size=6)}
    write_run(tmp_path / "a", 0, 5, values)
    path = tmp_path / "a" / "episodes.npz"
    whole, named = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = compare.read_run(tmp_path / "a").episodes
        except ValueError as e:
            assert "episodes.npz" in str(e)
            named += 1
        else:
            assert digest(found) == digest(values)
    assert named > len(whole) / 2
    np.savez(path, **{name: x + 1 for name, x in values.items()})
    with pytest.raises(ValueError, match="episodes.npz, got others: it is damaged"):
        compare.read_run(tmp_path / "a")
