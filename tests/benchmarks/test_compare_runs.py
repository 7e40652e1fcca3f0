"""benchmarks/compare_runs.py: what makes up a row, what is compared with what, and what is refused."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from scipy import stats

import compare_runs
from evidence.intervals import linearised, share, shown
from evidence.runs import read_run


def finished(folder, rows, file="predictions", rows_of_data=None, sha="same", **args):
    folder.mkdir(parents=True)
    (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"sha256": sha, "rows": rows_of_data or {"train": 80, "test": len(rows)}}
    flags = {"method": "lora", "lora_rank": 8, "lr": 1e-3, "seed": 0, "dataset": None, "output_dir": folder.name} | args
    (folder / "results.json").write_text(json.dumps({"args": flags, "data": data}))
    return folder


def labelled(right, n=40, label="spam"):
    return [{"id": i, "label": label, "prediction": label if i < right else "other"} for i in range(n)]


def answers(losses, tokens):
    return [
        {"id": i, "instruction": f"Say {i}", "reference": "yes", "reference_loss": loss, "reference_tokens": count}
        for i, (loss, count) in enumerate(zip(losses, tokens, strict=True))
    ]


def table_of(capsys):
    text = capsys.readouterr().out
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return lines[0], {line[0]: line[1:] for line in lines[1:]}, text


def test_runs_with_other_rates_are_other_rows_and_the_rate_is_shown(tmp_path, capsys):
    rates = [(1e-3, 0, 38), (4e-3, 0, 20), (1e-3, 1, 36), (4e-3, 1, 22)]
    compare_runs.compare([finished(tmp_path / f"{lr}-{seed}", labelled(n), lr=lr, seed=seed) for lr, seed, n in rates])
    _, rows, _ = table_of(capsys)
    assert [*rows] == ["lora rank 8, lr 0.001", "lora rank 8, lr 0.004"]
    assert [(row[0][:6], row[2]) for row in rows.values()] == [("0.9250", "2"), ("0.5250", "2")]


def test_seeds_that_draw_their_own_examples_are_seeds_of_one_row_and_others_are_not(tmp_path, capsys):
    runs = [finished(tmp_path / f"{i}", labelled(30 + i), seed=i, draw_seed=i) for i in range(3)]
    fixed = [finished(tmp_path / f"fixed-{i}", labelled(30 + i), seed=i, draw_seed=None) for i in range(3)]
    compare_runs.compare([*runs, *fixed])
    _, rows, _ = table_of(capsys)
    assert [(name, row[2]) for name, row in rows.items()] == [
        ("lora rank 8, draw-seed own", "3"),
        ("lora rank 8, draw-seed None", "3"),
    ]
    compare_runs.compare([finished(tmp_path / f"same-{i}", labelled(30 + i), seed=i, draw_seed=0) for i in range(3)])
    assert [row[2] for row in table_of(capsys)[1].values()] == ["3"]


def test_an_answer_may_hold_any_character(tmp_path, capsys):
    odd = [{**row, "response": "a\u2028b\u0085c"} for row in answers([3.0, 4.0], [2, 2])]
    folder = finished(tmp_path / "a", odd, file="generations")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in odd)
    (folder / "generations.jsonl").write_text(text, encoding="utf-8")
    compare_runs.compare([folder])
    assert len(read_run(folder).examples["loss"]) == 2


@pytest.mark.parametrize(
    ("name", "a", "b", "shown_as"),
    [
        ("epochs", 2, 5, "epochs"),
        ("lora_targets", ["q", "v"], ["q"], "lora-targets"),
        ("max_length", 256, 512, "max-length"),
        ("warmup_steps", None, 10, "warmup-steps"),
        ("model", "gpt2", "gpt2-nano", "model"),
        ("lora_rank", 8, 16, "rank"),
    ],
)
def test_every_flag_that_changes_the_result_tells_rows_apart(name, a, b, shown_as, tmp_path, capsys):
    compare_runs.compare([finished(tmp_path / str(i), labelled(30), **{name: x}) for i, x in enumerate((a, b))])
    _, rows, _ = table_of(capsys)
    assert len(rows) == 2 and all(shown_as in title for title in rows)


def test_what_changes_no_result_makes_no_row_of_its_own(tmp_path, capsys):
    others = {"micro_batch_size": 4, "log_every": 7, "output_dir": "x", "forgetting_data": "none", "data": "moved.csv"}
    runs = [finished(tmp_path / "a", labelled(30)), finished(tmp_path / "b", labelled(30), seed=1, **others)]
    compare_runs.compare(runs)
    _, rows, _ = table_of(capsys)
    assert [*rows] == ["lora rank 8"] and rows["lora rank 8"][2] == "2"


def test_flags_of_adapters_do_not_tell_runs_without_adapters_apart(tmp_path, capsys):
    runs = [finished(tmp_path / str(i), labelled(30), method="full", lora_rank=8 * (i + 1), seed=i) for i in range(2)]
    compare_runs.compare(runs)
    assert [*table_of(capsys)[1]] == ["full"]


def test_all_right_has_wilsons_interval_and_a_difference_that_could_have_been_missed(tmp_path, capsys):
    runs = [
        finished(tmp_path / f"{method}{seed}", labelled(40), method=method, seed=seed)
        for method in ("lora", "full")
        for seed in range(4)
    ]
    compare_runs.compare(runs)
    _, rows, text = table_of(capsys)
    assert rows["full"][0] == shown(share([1] * 40).entry()) == "1.0000 [0.9124, 1.0000]"
    assert rows["full"][3] == "1.0000"
    # Two examples of 42 that differ.
    least = (stats.t.ppf(0.975, 41) + stats.t.ppf(0.8, 41)) * math.sqrt(2 / 41 / 42)
    assert f"a difference of {least:.4f} would have been found" in text


@pytest.mark.parametrize("seeds", [1, 3])
def test_few_seeds_claim_no_difference(seeds, tmp_path, capsys):
    for method, right in (("lora", 39), ("full", 2)):
        for seed in range(seeds):
            finished(tmp_path / f"{method}{seed}", labelled(right), method=method, seed=seed)
    compare_runs.compare(sorted(tmp_path.iterdir()))
    _, rows, text = table_of(capsys)
    assert "".join(rows["lora rank 8"][3:]) == ""
    assert text.endswith("too few seeds to claim a difference (four or more claim one)\n")


def test_forgetting_of_different_texts_is_not_averaged(tmp_path):
    runs = [finished(tmp_path / str(seed), labelled(30), seed=seed) for seed in range(2)]
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        pieces = {"tokens": [10, 10], "before": [30.0, 31.0], "after": [33.0, 35.0]}
        results["forgetting"] = {"pieces": pieces, "sha256": run.name}
        (run / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="different texts"):
        compare_runs.compare(runs)


def test_one_row_by_itself_says_nothing_of_differences(tmp_path, capsys):
    compare_runs.compare([finished(tmp_path / "a", labelled(40))])
    assert table_of(capsys)[2].endswith("\nn = 40 test examples\n")


def test_one_example_shows_no_difference(tmp_path, capsys):
    runs = [finished(tmp_path / m, labelled(right, 1), method=m) for m, right in (("lora", 1), ("full", 0))]
    compare_runs.compare(runs)
    _, rows, text = table_of(capsys)
    assert "".join(rows["full"][3:]) == "" and "would have been found in" not in text


def test_generations_are_compared_by_the_perplexity_of_the_wanted_response(tmp_path, capsys):
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, 30, 50).tolist()
    losses = [(np.array(tokens) * rng.uniform(2, 4, 50) + shift).round(4).tolist() for shift in (0, 4.0)]
    for method, loss in zip(("lora", "full"), losses, strict=True):
        for seed in range(4):
            finished(tmp_path / f"{method}{seed}", answers(loss, tokens), "generations", method=method, seed=seed)
    compare_runs.compare([tmp_path / f"{method}{seed}" for method in ("lora", "full") for seed in range(4)])
    head, rows, text = table_of(capsys)
    assert head[1] == "perplexity of the response, 95% interval"
    scores = linearised(np.array(losses[1]), np.array(tokens))
    half = stats.t.ppf(0.975, 49) * stats.sem(scores)
    value = sum(losses[1]) / sum(tokens)
    assert rows["full"][0] == f"{math.exp(value):.4f} [{math.exp(value - half):.4f}, {math.exp(value + half):.4f}]"
    scores = linearised(np.subtract(*losses[::-1]), np.array(tokens))
    t = (sum(losses[1]) - sum(losses[0])) / sum(tokens) / stats.sem(scores)
    assert rows["full"][3] == f"{2 * stats.t.sf(t, 49):.4f}" and "; a ratio of 1." in text


def test_generations_that_never_differ_do_not_say_what_could_have_been_found(tmp_path, capsys):
    for lr in (1, 2):
        for seed in range(4):
            rows = answers([4.0, 6.0, 9.0], [2, 2, 3])
            finished(tmp_path / f"{lr}-{seed}", rows, "generations", lr=lr, seed=seed)
    compare_runs.compare(sorted(tmp_path.iterdir()))
    assert "cannot be told from scores that never differ" in table_of(capsys)[2]


def test_preferences_are_compared_by_the_accuracy_of_the_rewards(tmp_path, capsys):
    def pairs(wins):
        texts = {"prompt": "p", "chosen": "a", "rejected": "b"}
        return [texts | {"id": i, "chosen_reward": float(i < wins), "rejected_reward": 0.5} for i in range(40)]

    runs = [finished(tmp_path / m, pairs(wins), method=m) for m, wins in (("lora", 30), ("full", 20))]
    compare_runs.compare(runs)
    head, rows, _ = table_of(capsys)
    assert head[1].startswith("reward accuracy") and rows["lora rank 8"][0] == shown(share([1] * 30 + [0] * 10).entry())


def refusals(tmp_path):
    """name -> (runs, what the message says)."""
    good = finished(tmp_path / "good", labelled(30))
    other = {
        "other labels": finished(tmp_path / "labels", labelled(30, label="ham"), lr=1),
        "fewer": finished(tmp_path / "fewer", labelled(30, 39), lr=1),
        "file changed": finished(tmp_path / "changed", labelled(30), sha="another", lr=1),
        "data set": finished(tmp_path / "imdb", labelled(30), dataset="imdb", lr=1),
        "kind": finished(tmp_path / "kind", answers([1.0] * 40, [1] * 40), "generations", lr=1),
        "twice": finished(tmp_path / "again", labelled(30)),
        "empty": finished(tmp_path / "empty", []),
        "no scores": finished(tmp_path / "scores", [{"id": 0}]),
        "damaged line": finished(tmp_path / "line", labelled(30)),
        "damaged results": finished(tmp_path / "results", labelled(30)),
        "nothing": tmp_path / "nothing",
        "file": tmp_path / "file",
    }
    (tmp_path / "line" / "predictions.jsonl").write_text('{"id": 0, "label"\n')
    (tmp_path / "results" / "results.json").write_text("[1, 2")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "file").write_text("")
    imdb = finished(tmp_path / "enron", labelled(30), dataset="enron")
    said = {
        "other labels": "same examples",
        "fewer": "same examples",
        "file changed": "different data",
        "kind": "runs of one kind",
        "twice": "one run twice",
        "empty": "no test examples",
        "no scores": "no scores",
        "damaged line": "damaged",
        "damaged results": "damaged",
        "nothing": "holds no finished run",
        "file": "is not a folder",
    }
    cases = {name: ([good, other[name]], message) for name, message in said.items()}
    return cases | {
        "data set": ([imdb, other["data set"]], "different data"),
        "path twice": ([good, good], "named twice"),
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forgetting", 3),
        ("forgetting", {"pieces": {"tokens": [2, 2], "before": [1.0, 1.0], "after": [1.0]}}),
        ("args", {"method": "lora", "seed": [0]}),
        ("args", {"method": 3, "seed": 0}),
        ("parameters", 3),
        ("seconds", {"train": "long"}),
    ],
)
def test_results_damaged_by_hand_are_named_before_anything_is_printed(name, value, tmp_path, run_here):
    runs = [finished(tmp_path / f"{seed}", labelled(30), seed=seed) for seed in range(2)]
    path = runs[1] / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    status, out, err = run_here(compare_runs, *runs)
    assert status == 2 and out == "" and f"{path} is damaged" in err and err.count("\n") == 2


def test_what_cannot_be_compared_gets_one_message_and_no_table(tmp_path, run_here):
    for name, (runs, message) in refusals(tmp_path).items():
        status, out, err = run_here(compare_runs, *runs)
        assert status == 2 and out == "", name
        said = err.replace(str(tmp_path), "")
        assert message in said and said.startswith("\nerror: ") and said.count("\n") == 2 and len(said) < 300, name


def test_train_sets_of_several_sizes_are_compared_on_the_same_test_examples(tmp_path, capsys):
    runs = [
        finished(tmp_path / str(n), labelled(30), rows_of_data={"train": n}, sha=str(n), train_examples=n)
        for n in (50, 100)
    ]
    compare_runs.compare(runs)
    assert [*table_of(capsys)[1]] == ["lora rank 8, train-examples 50", "lora rank 8, train-examples 100"]


def test_help_and_no_runs_are_told_without_a_traceback():
    for words, status, said in ((["--help"], 0, "folders of finished runs"), ([], 2, "error: RUNS: name the folders")):
        command = [sys.executable, str(ROOT / "benchmarks" / "compare_runs.py"), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status and said in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_a_run_of_another_program_goes_by_the_name_of_its_folder(tmp_path, capsys):
    finished(tmp_path / "lora", labelled(30))
    finished(tmp_path / "tfidf", labelled(35))
    (tmp_path / "tfidf" / "results.json").unlink()
    compare_runs.compare([tmp_path / "lora", tmp_path / "tfidf"])
    assert [*table_of(capsys)[1]] == ["lora rank 8", "tfidf"]
