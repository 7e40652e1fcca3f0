"""scripts/predict.py: a line for every row, any model, known texts named, nothing overwritten, nothing half-written."""

import csv
import json
import os
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
import transformers
from forked import run_forked, start_forked
from helpers import ROOT, command, mails, questions, results_of, run_in_process, run_script, write_rows
from one_example import encode_labelled
from sklearn import metrics as sklearn_metrics
from test_commands import load_script
from test_own_tokenizer import ENDS, trained

from gpt2_scratch.own_tokenizer import OwnTokenizer
from gpt2_scratch.tokenizer import GPT2
from tasks import Labelled
from training.evaluation.prediction import Labeller, as_read

SCRIPT = load_script("predict")


@pytest.fixture
def predict(run_here):
    """Runs predict.py in this process: status, what it printed, its message."""
    return partial(run_here, SCRIPT)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def metrics_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".metrics.json").read_text())


def fine_tuned(script, folder, *flags):
    done = run_in_process(script, *flags, "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def classifier(tiny_model, mail_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "cls"
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 20, "--lr", 3e-2, "--max-length", 64]
    return fine_tuned("finetune_cls", folder, *flags)


@pytest.fixture(scope="module")
def tutor(tiny_model, tmp_path_factory):
    """Trained on prompts too and without a header, on a folder with a test part."""
    folder, data = tmp_path_factory.mktemp("runs") / "ift", tmp_path_factory.mktemp("parts")
    for name, rows in (("train", questions(40)), ("validation", questions(60)[40:50]), ("test", questions(70)[50:])):
        write_rows(data / f"{name}.jsonl", rows)
    flags = ["--data", data, "--model", tiny_model, "--max-steps", 3, "--new-tokens", 2]
    return fine_tuned("finetune_ift", folder, *flags, "--no-mask-prompt", "--no-response-header"), data


# One line a row.

ODD = [
    {"text": "cheap pills", "label": "spam"},
    {"text": "", "label": "ham"},
    {"text": None, "label": "ham"},
    {"text": " \t\n", "label": None},
    {"text": 7, "label": "ham"},
    {"text": ["a", "list"], "label": "ham"},
    {"text": float("nan"), "label": "ham"},
    {"text": "half a character \ud83d", "label": ""},
    {"text": "東京都は雨です。" * 60, "label": "ham"},
    {"text": "a label that is a list", "label": ["ham", "spam"]},
    {"text": "a class of its own", "label": "Spam"},
    {"label": "ham"},
    {"text": "cheap pills", "label": "spam"},
]


def test_every_row_has_one_line_in_order_whatever_is_in_it(classifier, predict, tmp_path):
    data = write_rows(tmp_path / "odd.jsonl", ODD)
    status, out, err = predict("--run", classifier, "--data", data, "--output", tmp_path / "out.jsonl")
    assert status == 0, err
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["row"] for line in lines] == list(range(len(ODD)))
    assert [i for i, line in enumerate(lines) if line.get("empty")] == [1, 2, 3, 6, 11]
    assert [i for i, line in enumerate(lines) if line.get("unreadable")] == [4, 5]
    assert [i for i, line in enumerate(lines) if line.get("cut")] == [8]
    for line in lines:
        answered = not (line.get("empty") or line.get("unreadable"))
        assert (line["prediction"] in ("ham", "spam")) == answered == (line["probabilities"] is not None)
    assert lines[7]["text"] == "half a character ?"
    assert lines[0]["probabilities"] == pytest.approx(lines[12]["probabilities"])
    assert metrics_of(tmp_path / "out.jsonl")["accuracy"]["n"] == 3  # rows 0, 8 and 12
    for said in ("5 rows have no text", "2 rows have something other than text", "2 rows have a label that the model"):
        assert said in out
    assert "'Spam' is like 'spam'" in out and "which are of the other 3\n" in out


def test_an_odd_prompt_gets_a_line_too(tutor, predict, tmp_path):
    rows = [
        *questions(2),
        {"instruction": ""},
        {"instruction": {"a": 7}},
        {"instruction": "long " * 2000, "response": "x"},
    ]
    data = write_rows(tmp_path / "asked.jsonl", rows)
    status, out, err = predict("--run", tutor[0], "--data", data, "--new-tokens", 2, "--output", tmp_path / "out.jsonl")
    assert status == 0, err
    lines = lines_of(tmp_path / "out.jsonl")
    assert [line["row"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[2] == {"row": 2, "prompt": None, "response": None, "stopped": None, "empty": True}
    assert lines[3] == {"row": 3, "prompt": None, "response": None, "stopped": None, "unreadable": True}
    assert lines[4]["cut"] and len(GPT2.encode(lines[4]["prompt"])) == 510 and "1 cut to the 510 tokens" in out


@pytest.mark.parametrize("text", ["東京都は雨です。" * 60, "👩‍👩‍👧🙂" * 60, "straße " * 60, "word " * 300])
def test_a_cut_text_is_a_beginning_of_the_text_and_fits_when_it_is_read_again(text, classifier, predict, tmp_path):
    data = write_rows(tmp_path / "long.jsonl", [{"text": "x" * i + text} for i in range(4)])
    flags = ["--run", classifier, "--output", tmp_path / "out.jsonl"]
    assert predict(*flags, "--data", data)[0] == 0
    first = lines_of(tmp_path / "out.jsonl")
    assert all(line["cut"] and 60 < len(GPT2.encode(line["text"])) <= 64 for line in first)
    assert all(("x" * i + text).startswith(line["text"]) for i, line in enumerate(first))
    data = write_rows(tmp_path / "again.jsonl", [{"text": line["text"]} for line in first])
    assert predict(*flags, "--data", data, "--overwrite")[0] == 0
    for line, again in zip(first, lines_of(tmp_path / "out.jsonl"), strict=True):
        assert "cut" not in again and again["text"] == line["text"]
        assert again["probabilities"] == pytest.approx(line["probabilities"], rel=1e-4)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_a_text_cut_by_a_tokenizer_that_changes_texts_is_shown_as_it_stands_in_the_file(kind):
    read = transformers.PreTrainedTokenizerFast(tokenizer_object=trained(kind), eos_token=ENDS[kind])
    tokenizer = OwnTokenizer(Path(), read, None)
    text, kept = "The  QUICK brown Fox, isn't it?\n\nNaïve café — 東京 🙂 and more WORDS than fit", "\n\n### Two:\nEnd"
    changed = 0
    for length in range(20, len(tokenizer.encode(text))):
        x = encode_labelled(tokenizer, Labelled(0, text, kept), 0, length)
        shown = as_read(tokenizer, text, kept, x.tokens.tolist())
        changed += shown != tokenizer.decode(x.tokens.tolist())
        assert shown.endswith(kept) and text.startswith(shown.removesuffix(kept)) and len(shown) > len(kept)
        assert length - 8 < len(tokenizer.encode(shown)) <= length
    assert changed


def test_rows_of_a_folder_say_which_part_they_are_from(tutor, predict, tmp_path):
    folder, data = tutor
    assert predict("--run", folder, "--data", data, "--new-tokens", 1, "--output", tmp_path / "out.csv")[0] == 0
    table = pandas.read_csv(tmp_path / "out.csv")
    assert table.groupby("file").size().to_dict() == {"train.jsonl": 40, "validation.jsonl": 10, "test.jsonl": 20}
    assert (table["file"] == table["part"] + ".jsonl").all() and list(table["row"]) == list(range(70))


def test_nothing_is_said_of_a_part_that_training_would_draw(classifier, predict, tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("train", "dev"):
        write_rows(tmp_path / "parts" / f"{name}.jsonl", mails(4))
    flags = ["--run", classifier, "--data", tmp_path / "parts", "--output", tmp_path / "out.csv"]
    status, said, err = predict(*flags)
    assert status == 0 and "8 rows, 8 with a label" in said and "drawn" not in said, err


def test_rows_of_a_folder_say_which_file_they_are_from(classifier, predict, tmp_path):
    (tmp_path / "days").mkdir()
    for name, size in (("monday", 3), ("tuesday", 1), ("wednesday", 4)):
        as_csv(tmp_path / "days" / f"{name}.csv", mails(size))
    flags = ["--run", classifier, "--data", tmp_path / "days", "--output", tmp_path / "out.jsonl"]
    assert predict(*flags)[0] == 0
    lines = lines_of(tmp_path / "out.jsonl")
    expected = ["monday.csv"] * 3 + ["tuesday.csv"] + ["wednesday.csv"] * 4
    assert [line["file"] for line in lines] == expected and [line["row"] for line in lines] == list(range(8))


def test_a_file_in_another_encoding_is_read_with_a_flag(classifier, predict, tmp_path):
    (tmp_path / "mine.csv").write_bytes("text,id\ncafé,1\n".encode("cp1252"))
    flags = ["--run", classifier, "--data", tmp_path / "mine.csv", "--output", tmp_path / "out.jsonl"]
    status, _, err = predict(*flags)
    assert status == 2 and "--encoding" in err
    assert predict(*flags, "--encoding", "cp1252")[0] == 0
    assert lines_of(tmp_path / "out.jsonl")[0]["text"] == "café"


def test_answers_do_not_depend_on_how_many_rows_are_held_at_a_time(
    classifier, predict, mail_file, tmp_path, monkeypatch
):
    found = []
    for chunk in (2048, 7):
        monkeypatch.setattr(Labeller, "chunk", chunk)
        flags = ["--run", classifier, "--data", mail_file, "--output", tmp_path / f"{chunk}.jsonl"]
        assert predict(*flags)[0] == 0
        found.append((lines_of(tmp_path / f"{chunk}.jsonl"), metrics_of(tmp_path / f"{chunk}.jsonl")))
    (lines, metrics), (others, other_metrics) = found
    assert len(lines) == 60 and metrics["accuracy"] == other_metrics["accuracy"]
    for a, b in zip(lines, others, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], rel=1e-4)
        assert {**a, "probabilities": 0} == {**b, "probabilities": 0}


# Files that are written.

AWKWARD = [
    {"id": 1, "text": 'say "hi", then\nleave\r\n', "row": "clash", "made": {"a": [1, None]}},
    {"id": 2, "text": "a lone \r return; and\ta tab", "row": "", "made": None},
    {"id": 3, "text": "", "row": "NA", "made": 1.5},
    {"id": 4, "text": "007", "row": "'", "made": True},
    {"id": 5, "text": "=1+1 \0", "row": '"', "made": "é"},
]


@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t"), ("CSV", ",")])
def test_pandas_reads_the_rows_of_a_table_as_they_are_in_json_lines(ending, separator, classifier, predict, tmp_path):
    data = write_rows(tmp_path / "awkward.jsonl", AWKWARD)
    flags = ["--run", classifier, "--data", data, "--keep-columns", "all", "--output"]
    assert predict(*flags, tmp_path / f"a.{ending}")[0] == predict(*flags, tmp_path / "b.jsonl")[0] == 0
    strings = {name: str for name in ("text", "input_text", "input_row", "made", "prediction")}
    table = pandas.read_csv(tmp_path / f"a.{ending}", sep=separator, dtype=strings, keep_default_na=False)
    lines = lines_of(tmp_path / "b.jsonl")
    names = [
        "row",
        "id",
        "input_text",
        "input_row",
        "made",
        "text",
        "prediction",
        "probability_ham",
        "probability_spam",
    ]
    assert list(table)[:9] == names and len(table) == len(lines) == 5
    for name in ("row", "id", "input_row"):
        assert list(table[name]) == [line[name] for line in lines], name
    assert list(table["input_text"]) == list(table["text"]) == [r["text"].replace("\0", "\ufffd") for r in AWKWARD]
    assert [line["text"] for line in lines] == [line["input_text"] for line in lines] == [r["text"] for r in AWKWARD]
    assert [json.loads(cell) for cell in table["made"][[0, 2]]] == [{"a": [1, None]}, 1.5]
    assert list(table["prediction"]) == [line["prediction"] or "" for line in lines]
    assert [float(p) for p in table["probability_ham"][[0, 4]]] == [lines[i]["probabilities"]["ham"] for i in (0, 4)]
    assert list(table["empty"]) == [line.get("empty", False) for line in lines]
    with open(tmp_path / f"a.{ending}", newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file, delimiter=separator, strict=True))) == 6


def test_columns_of_the_input_are_kept_on_request(classifier, predict, tmp_path):
    rows = [
        {"id": f"00{i}", "text": r["text"], "label": r["label"], "input_label": "x"} for i, r in enumerate(mails(4))
    ]
    data = write_rows(tmp_path / "mine.jsonl", rows)
    flags = ["--run", classifier, "--data", data, "--output", tmp_path / "out.jsonl", "--keep-columns"]
    assert predict(*flags, "id", "label", "input_label")[0] == 0
    for row, line in zip(rows, lines_of(tmp_path / "out.jsonl"), strict=True):
        assert (line["id"], line["label"], line["input_label"]) == (row["id"], row["label"], "x")
        assert line["input_input_label"] == row["label"]
    earlier = tmp_path / "out.jsonl"
    for ending in ("jsonl", "csv"):
        flags = ["--run", classifier, "--data", earlier, "--output", tmp_path / f"again.{ending}", "--keep-columns"]
        assert predict(*flags, "all", "--overwrite")[0] == 0
    again, table = lines_of(tmp_path / "again.jsonl"), pandas.read_csv(tmp_path / "again.csv")
    for line, new, cell in zip(lines_of(earlier), again, table["input_probabilities"], strict=True):
        assert new["input_probabilities"] == json.loads(cell) == line["probabilities"]
        assert list(new["probabilities"]) == ["ham", "spam"]
    status, _, err = predict(*flags, "idd", "--overwrite")
    assert status == 2 and "--keep-columns idd: no such column (did you mean id?)" in err


def test_nothing_is_overwritten_in_silence(classifier, predict, mail_file, tmp_path):
    out = tmp_path / "out.jsonl"
    flags = ["--run", classifier, "--data", mail_file, "--output", out]
    assert predict(*flags)[0] == 0
    before = out.read_bytes()
    status, _, err = predict(*flags)
    assert status == 2 and f"--output {out}: out.jsonl is there already; add --overwrite" in err
    out.unlink()
    status, _, err = predict(*flags)
    assert status == 2 and "out.metrics.json is there already" in err
    assert predict(*flags, "--overwrite")[0] == 0 and out.read_bytes() == before


def test_metrics_of_an_earlier_output_do_not_stay_beside_a_new_one(classifier, predict, mail_file, tmp_path):
    out = tmp_path / "out.jsonl"
    assert predict("--run", classifier, "--data", mail_file, "--output", out)[0] == 0
    data = write_rows(tmp_path / "unlabelled.jsonl", [{"text": "hello"}])
    assert predict("--run", classifier, "--data", data, "--output", out, "--overwrite")[0] == 0
    assert len(lines_of(out)) == 1 and not out.with_suffix(".metrics.json").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("mine.jsonl", "is the data itself"),
        ("link.jsonl", "is the data itself"),
        ("twin.jsonl", "is the data itself"),
        ("folder.jsonl", "is a folder"),
        ("out.xlsx", "known are .jsonl, .csv, .tsv"),
        ("out", "known are .jsonl, .csv, .tsv"),
        ("mine.jsonl/out.csv", "cannot be written there"),
        ("{run}/predictions.jsonl", "is a file of the run"),
    ],
)
def test_an_output_that_would_do_harm_is_refused(output, message, classifier, predict, tmp_path):
    data = write_rows(tmp_path / "mine.jsonl", mails(4))
    (tmp_path / "link.jsonl").symlink_to(data)
    os.link(data, tmp_path / "twin.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    before = data.read_bytes(), (classifier / "predictions.jsonl").read_bytes()
    path = tmp_path / output.format(run=classifier)
    status, _, err = predict("--run", classifier, "--data", data, "--output", path, "--overwrite")
    assert status == 2 and message in err
    assert before == (data.read_bytes(), (classifier / "predictions.jsonl").read_bytes())


def test_an_output_in_the_folder_of_the_data_is_refused(classifier, predict, tmp_path):
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "mine.jsonl", mails(4))
    status, _, err = predict(
        "--run", classifier, "--data", tmp_path / "data", "--output", tmp_path / "data" / "out.csv"
    )
    assert status == 2 and "would be read as data" in err


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("many") / "many.jsonl", mails(60) * 100)


def test_a_full_disk_leaves_the_earlier_output_as_it_was(classifier, many, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("earlier\n")
    words = command("predict", "--run", classifier, "--data", many, "--output", out, "--overwrite")
    done = run_forked(words[1:], largest_file=200_000)  # as on a disk that is full
    assert done.returncode == 2 and "out.csv could not be written" in done.stderr and "Traceback" not in done.stderr
    assert out.read_text() == "earlier\n" and [path.name for path in tmp_path.iterdir()] == ["out.csv"]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_prediction_writes_nothing_half(sent, status, classifier, many, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("earlier\n")
    words = command("predict", "--run", classifier, "--data", many, "--output", out, "--overwrite")
    (run,) = start_forked(words[1:], tmp_path)
    deadline = time.monotonic() + 120
    while not (begun := (tmp_path / ".out.csv.new").exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(run.pid, sent)
    run.join(60)
    text = (tmp_path / "err").read_text()
    assert begun and run.exitcode == status and "Traceback" not in text
    assert "--resume" not in text and ("nothing is left half-written" in text) == (sent == signal.SIGINT)
    assert out.read_text() == "earlier\n" and not out.with_suffix(".metrics.json").exists()


def test_two_processes_write_what_one_writes(classifier, predict, mail_file, tmp_path):
    flags = ["--run", classifier, "--data", mail_file, "--output"]
    assert predict(*flags, tmp_path / "one.jsonl")[0] == 0
    done = run_script("predict", *flags, tmp_path / "two.jsonl", processes=2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert metrics_of(tmp_path / "two.jsonl") == metrics_of(tmp_path / "one.jsonl")
    assert done.stdout.count("60 rows in") == 1 == done.stdout.count("model   ")


# Texts that the model was trained on.


def as_csv(path: Path, rows: list[dict]) -> Path:
    pandas.DataFrame(rows).to_csv(path, index=False)
    return path


def test_texts_of_the_training_are_known_in_any_file(classifier, predict, mail_file, tmp_path):
    trained = set(results_of(classifier)["data"]["rows"].items())
    assert trained == {("train", 48), ("validation", 6), ("test", 6)}
    new = [{"text": f"new {i}: see you", "label": "ham"} for i in range(5)]
    held = {line["id"] for line in lines_of(classifier / "predictions.jsonl")}
    copy = [{"subject": "x", **row, "text": row["text"].upper() + " "} for row in mails(60)]
    files = {
        "renamed copy": copy,
        "superset": mails(60) + new,
        "part": [r for i, r in enumerate(mails(60)) if i in held],
    }
    for name, rows in files.items():
        out = tmp_path / f"{name}.jsonl"
        status, said, err = predict("--run", classifier, "--data", as_csv(tmp_path / "x.csv", rows), "--output", out)
        assert status == 0, err
        seen = [line.get("seen") for line in lines_of(out)]
        if name == "part":
            assert seen == [None] * 6 and "trained on" not in said and "new_rows" not in metrics_of(out)
            assert metrics_of(out)["accuracy"]["value"] == results_of(classifier)["test"]["accuracy"]["value"]
        else:
            assert (seen.count("train"), seen.count("validation")) == (48, 6)
            assert f"trained on 48 of the {len(rows):,} rows" in said and "6 rows were the validation part" in said
            assert {i for i in range(60) if seen[i] is None} == held
            metrics = metrics_of(out)
            assert (metrics["accuracy"]["n"], metrics["new_rows"]["accuracy"]["n"]) == (len(rows), len(rows) - 54)
            assert metrics["rows"]["seen_in_train"] == 48


def test_a_run_that_does_not_say_what_it_was_trained_on_is_said_to(classifier, predict, mail_file, tmp_path):
    shutil.copytree(classifier, tmp_path / "run")
    (tmp_path / "run" / "trained_on.json").unlink()
    status, said, _ = predict("--run", tmp_path / "run", "--data", mail_file)
    assert status == 0
    assert "seen" not in lines_of(tmp_path / "run" / "predict-mails.jsonl")[0]
    assert "the data is what the model was trained on" in said
    copy = shutil.copy(mail_file, tmp_path / "copy.jsonl")
    status, said, _ = predict("--run", tmp_path / "run", "--data", copy)
    assert status == 0 and "does not say what it was trained on" in said
    (tmp_path / "run" / "trained_on.json").write_text("{")
    status, _, err = predict("--run", tmp_path / "run", "--data", mail_file, "--overwrite")
    assert status == 2 and "trained_on.json: is damaged" in err


# Models without a run.


def same_answers(a: Path, b: Path, rel: float = 1e-4) -> None:
    ours, theirs = lines_of(a), lines_of(b)
    assert len(ours) == len(theirs) > 0
    for line, other in zip(ours, theirs, strict=True):
        assert line["prediction"] == other["prediction"] and line["text"] == other["text"]
        assert line["probabilities"] == pytest.approx(other["probabilities"], rel=rel)


def test_every_export_of_a_run_is_applied_like_the_run(classifier, predict, mail_file, tmp_path):
    assert predict("--run", classifier, "--data", mail_file, "--output", tmp_path / "run.jsonl")[0] == 0
    done = run_in_process("merge_lora", "--run", classifier, "--output", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    shutil.copytree(classifier / "adapter", tmp_path / "moved")
    shutil.copytree(classifier / "adapter", tmp_path / "as_peft")
    (tmp_path / "as_peft" / "adapter.json").unlink()
    length = ["--max-length", 64]
    forms = {
        "run": ["--model", classifier],
        "adapter": ["--model", classifier / "adapter"],
        "moved": ["--model", tmp_path / "moved"],
        "named": ["--adapter", tmp_path / "moved"],
        "merged": ["--model", tmp_path / "merged", *length],
        "as_peft": ["--model", tmp_path / "as_peft", "--labels", "ham", "spam", *length],
    }
    for name, flags in forms.items():
        out = tmp_path / f"{name}.out.jsonl"
        status, _, err = predict(*flags, "--data", mail_file, "--output", out)
        assert status == 0, (name, err)
        same_answers(tmp_path / "run.jsonl", out)
        assert metrics_of(out)["accuracy"]["value"] == metrics_of(tmp_path / "run.jsonl")["accuracy"]["value"]


def test_a_fully_fine_tuned_model_is_applied_without_its_run(tiny_model, mail_file, predict, tmp_path):
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 3, "--method", "full"]
    run = fine_tuned("finetune_cls", tmp_path / "run", *flags)
    shutil.copytree(run / "model", tmp_path / "elsewhere")
    for name, flags in {
        "run": ["--run", run],
        "in": ["--model", run / "model"],
        "out": ["--model", tmp_path / "elsewhere"],
    }.items():
        status, _, err = predict(*flags, "--data", mail_file, "--output", tmp_path / f"{name}.jsonl")
        assert status == 0, err
        same_answers(tmp_path / "run.jsonl", tmp_path / f"{name}.jsonl", rel=1e-6)


def test_a_language_model_without_its_run_answers_and_is_scored_with_the_flags(tutor, predict, tmp_path):
    folder, data = tutor
    test = data / "test.jsonl"
    done = run_in_process("merge_lora", "--run", folder, "--output", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    asked = ["--data", test, "--new-tokens", 3, "--output"]
    assert predict("--run", folder, *asked, tmp_path / "run.jsonl")[0] == 0
    settings = ["--no-mask-prompt", "--no-response-header"]
    status, _, err = predict("--model", tmp_path / "merged", *settings, *asked, tmp_path / "merged.jsonl")
    assert status == 0, err
    ours, theirs = (lines_of(tmp_path / f"{name}.jsonl") for name in ("run", "merged"))
    assert len(ours) == 20 and [line["prompt"] for line in ours] == [line["prompt"] for line in theirs]
    assert not any(line["prompt"].endswith("### Response:\n") for line in theirs)
    for name in ("loss", "response_perplexity", "text_perplexity"):
        value = metrics_of(tmp_path / "merged.jsonl")[name]["value"]
        assert value == pytest.approx(metrics_of(tmp_path / "run.jsonl")[name]["value"], rel=1e-4)


def test_the_metrics_of_the_test_part_are_those_of_the_run(tutor, predict, tmp_path):
    folder, data = tutor
    flags = ["--run", folder, "--data", data / "test.jsonl", "--new-tokens", 1, "--output", tmp_path / "out.jsonl"]
    assert predict(*flags)[0] == 0
    found, expected = metrics_of(tmp_path / "out.jsonl"), results_of(folder)["test"]
    for name in ("loss", "response_perplexity", "text_perplexity"):
        assert found[name] == pytest.approx(expected[name], rel=1e-6), name


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A classifier as transformers writes it, its tokenizer beside it."""
    folder = tmp_path_factory.mktemp("foreign") / "model"
    torch.manual_seed(0)
    names = {0: "billing", 1: "login", 2: "other"}
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=128, id2label=names, label2id={v: k for k, v in names.items()}
    )
    config.pad_token_id = 50256
    model = transformers.GPT2ForSequenceClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    model.save_pretrained(folder)
    tokenizer = folder.parent / "tokenizer"
    tokenizer.mkdir()
    shutil.copyfile(ROOT / "gpt2_scratch/assets/encoder.json", tokenizer / "vocab.json")
    shutil.copyfile(ROOT / "gpt2_scratch/assets/vocab.bpe", tokenizer / "merges.txt")
    read = transformers.GPT2Tokenizer.from_pretrained(tokenizer, pad_token="<|endoftext|>")
    read.save_pretrained(folder)
    return folder, read


@pytest.mark.parametrize("named", ["classes and architecture", "classes", "architecture"])
def test_a_classifier_of_transformers_gives_the_probabilities_that_transformers_gives(
    named, foreign, predict, tmp_path
):
    folder, tokenizer = foreign
    texts = [row["text"] for row in mails(40)] + ["naïve café — 東京 🙂", "x", "a\n\n b\t c ", "many words " * 90]
    shutil.copytree(folder, tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    if "classes" not in named:
        names = {str(i): f"LABEL_{i}" for i in range(3)}
        settings |= {"id2label": names, "label2id": {v: int(k) for k, v in names.items()}}
    if "architecture" not in named:
        del settings["architectures"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    model = transformers.GPT2ForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=128)
    with torch.no_grad():
        logits = model(**inputs).logits.double()
    data = write_rows(tmp_path / "mine.jsonl", [{"body": text} for text in texts])
    flags = ["--model", tmp_path / "model", "--data", data, "--text-column", "body", "--output", tmp_path / "out.jsonl"]
    status, _, err = predict(*flags)
    assert status == 0, err
    lines = lines_of(tmp_path / "out.jsonl")
    assert list(lines[0]["probabilities"]) == list(model.config.id2label.values())
    ours = np.log([list(line["probabilities"].values()) for line in lines])
    theirs = logits.log_softmax(1).numpy()
    assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(logits.numpy()).max()
    assert [line["prediction"] for line in lines] == [model.config.id2label[int(i)] for i in logits.argmax(1)]
    assert len({line["prediction"] for line in lines}) > 1 and lines[-1]["cut"]


def test_special_tokens_that_rows_spell_are_said_and_read_as_transformers_reads_them_on_request(
    foreign, predict, tmp_path
):
    folder, tokenizer = foreign
    texts = [f"A man plays {i}.<|endoftext|>A person plays." for i in range(8)] + ["plain"]
    model = transformers.GPT2ForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = [model(**tokenizer(text, return_tensors="pt")).logits[0].log_softmax(0).tolist() for text in texts]
    data = write_rows(tmp_path / "mine.jsonl", [{"text": text} for text in texts])
    flags = ["--model", folder, "--data", data, "--output", tmp_path / "out.jsonl", "--overwrite"]
    status, said, err = predict(*flags)
    assert status == 0, err
    assert "note    texts that spell special tokens (<|endoftext|> 8): read as ordinary text; --special-tokens" in said
    status, said, err = predict(*flags, "--special-tokens", "tokens")
    assert status == 0 and "<|endoftext|> 8): read as tokens" in said, err
    ours = np.log([list(line["probabilities"].values()) for line in lines_of(tmp_path / "out.jsonl")])
    assert np.abs(ours - np.array(theirs)).max() <= 1e-4


def test_classes_without_names_are_named_by_a_flag(foreign, predict, tmp_path):
    shutil.copytree(foreign[0], tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    settings |= {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    data = write_rows(tmp_path / "mine.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 2.0}])
    flags = [
        "--model",
        tmp_path / "model",
        "--data",
        data,
        "--label-column",
        "label",
        "--output",
        tmp_path / "out.jsonl",
    ]
    status, _, err = predict(*flags)
    assert status == 2 and "are none of the classes of the model, 'LABEL_0'" in err and "--labels" in err
    status, _, err = predict(*flags, "--labels", "0", "1")
    assert status == 2 and "--labels: names 2 classes, the model has 3" in err
    assert "the model's order is 'LABEL_0', 'LABEL_1', 'LABEL_2'" in err
    status, said, err = predict(*flags, "--labels", "0", " 1\u200b", "2")
    assert status == 0 and "names the classes: '0' is the model's 'LABEL_0', '1' is the model's 'LABEL_1'" in said, err
    assert [line["label"] for line in lines_of(tmp_path / "out.jsonl")] == ["0", "2"]
    assert metrics_of(tmp_path / "out.jsonl")["accuracy"]["n"] == 2
    settings |= {"id2label": {"0": "not  spam", "1": "spam ", "2": "?"}}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    write_rows(data, [{"text": "a", "label": "not  spam"}, {"text": "b", "label": "spam"}])
    assert predict(*flags, "--overwrite")[0] == 0
    assert [line["label"] for line in lines_of(tmp_path / "out.jsonl")] == ["not  spam", "spam "]


@pytest.mark.parametrize("form", ["run", "adapter"])
def test_the_names_of_a_run_are_its_own_in_their_order(form, classifier, predict, mail_file, tmp_path):
    where = ["--run", classifier] if form == "run" else ["--adapter", classifier / "adapter"]
    flags = [*where, "--data", mail_file, "--output", tmp_path / "out.jsonl"]
    for given in (["spam", "ham"], ["Spam", "\u200bHAM "], ["spam", "other"], ["good", "bad"]):
        status, _, err = predict(*flags, "--labels", *given)
        assert status == 2 and "the model's order is 'ham', 'spam'" in err and len(err) < 300
    status, said, err = predict(*flags, "--labels", "ham", " spam")
    assert status == 0 and "is the model's" not in said, err
    assert {line["prediction"] for line in lines_of(tmp_path / "out.jsonl")} <= {"ham", "spam"}


def test_another_models_names_are_given_anew_in_its_order_alone(foreign, predict, tmp_path):
    data = write_rows(tmp_path / "mine.jsonl", [{"text": "a"}, {"text": "b"}])
    flags = ["--model", foreign[0], "--data", data, "--output", tmp_path / "out.jsonl"]
    assert predict(*flags)[0] == 0
    own = {"billing": "Rechnung", "login": "Zugang", "other": "anderes"}
    before = [line["prediction"] for line in lines_of(tmp_path / "out.jsonl")]
    status, _, err = predict(*flags, "--overwrite", "--labels", "login", "Billing", "other")
    assert status == 2 and "the model's order is 'billing', 'login', 'other'" in err
    status, said, err = predict(*flags, "--overwrite", "--labels", *own.values())
    assert status == 0 and "'Rechnung' is the model's 'billing', 'Zugang' is the model's 'login'" in said, err
    assert [line["prediction"] for line in lines_of(tmp_path / "out.jsonl")] == [own[name] for name in before]


def test_a_flag_of_the_other_kind_of_model_is_refused(classifier, tutor, predict, mail_file, tmp_path):
    flags = ["--data", mail_file, "--output", tmp_path / "out.jsonl"]
    for flag in ("--prompt-column", "--input-column", "--response-column"):
        status, _, err = predict("--run", classifier, *flags, flag, "text")
        assert status == 2 and f"{flag}: means nothing for a classifier; leave it out" in err
    status, _, err = predict("--run", classifier, *flags, "--new-tokens", 128)  # its default
    assert status == 2 and "--new-tokens: means nothing for a classifier; leave it out" in err
    for flag in ("--labels", "--leave-out-labels"):
        status, _, err = predict("--run", tutor[0], *flags, "--text-column", "text", flag, "ham")
        assert status == 2 and f"{flag}: means nothing for a language model; leave it out" in err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "its head is for multi_label_classification"),
        ({"problem_type": "regression"}, "its head is for regression"),
        ({"id2label": {"0": "LABEL_0"}}, "with 1 outputs"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "is a GPT2ForTokenClassification"),
        ({"id2label": {"0": "a", "1": "a", "2": "b"}}, "names a class twice"),
        ({"id2label": {"0": "a", "2": "b", "5": "c"}}, "does not number classes (its keys are not 0 to 2)"),
        ({"id2label": {"1": "a", "2": "b", "3": "c"}}, "does not number classes (its keys are not 0 to 2)"),
        (
            {"id2label": {"0": "a", "1": "b"}},
            "do not fit its classes: score.weight has shape (3, 32) instead of (2, 32)",
        ),
    ],
)
def test_a_head_that_does_not_classify_is_refused(settings, message, foreign, predict, tmp_path):
    shutil.copytree(foreign[0], tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    data = write_rows(tmp_path / "mine.jsonl", [{"text": "a"}])
    status, _, err = predict("--model", tmp_path / "model", "--data", data, "--output", tmp_path / "out.jsonl")
    assert status == 2 and message in err and not (tmp_path / "out.jsonl").exists()


# Columns and labels.


def test_labels_that_the_model_does_not_have_are_counted_and_their_rows_answered(classifier, predict, tmp_path):
    rows = [*mails(6), {"text": "odd one", "label": "maybe"}, {"text": "another", "label": None}]
    data, out = write_rows(tmp_path / "mine.jsonl", rows), tmp_path / "out.jsonl"
    status, said, err = predict("--run", classifier, "--data", data, "--label-column", "label", "--output", out)
    assert status == 0, err
    assert "8 rows, 7 with a label" in said and "1 of 8 rows have no label" in said
    assert "the metrics, which are of the other 6\n" in said
    assert "1 rows have a label that the model does not have ('maybe')" in said
    lines = lines_of(out)
    assert lines[6]["label"] == "maybe" and lines[6]["prediction"] and "label" not in lines[7]
    assert metrics_of(out)["accuracy"]["n"] == 6
    rows = metrics_of(out)["rows"]
    seen = sum(rows.pop(name) for name in [*rows] if name.startswith("seen_in_"))  # six are of the training's file
    assert rows == {"rows": 8, "labelled": 7, "unknown_label": 1, "cut": 0} and seen == 6


def test_labels_are_read_as_in_training_and_placeholders_left_out_on_request(classifier, predict, tmp_path):
    labels = [" spam", "ham\u200b", "\u00a0ham", "-", None]
    data = write_rows(tmp_path / "mine.jsonl", [{"text": f"text {i}", "label": x} for i, x in enumerate(labels)])
    flags = ["--run", classifier, "--data", data, "--output", tmp_path / "out.jsonl"]
    status, said, err = predict(*flags)
    assert status == 0 and "5 rows, 4 with a label" in said and "does not have ('-')" in said, err
    assert [line.get("label") for line in lines_of(tmp_path / "out.jsonl")] == ["spam", "ham", "ham", "-", None]
    status, said, err = predict(*flags, "--leave-out-labels", "-", "--overwrite")
    assert status == 0 and "5 rows, 3 with a label" in said and "does not have" not in said, err
    assert metrics_of(tmp_path / "out.jsonl")["accuracy"]["n"] == 3


def test_the_commonest_class_and_each_class_stand_beside_the_accuracy(classifier, predict, tmp_path):
    rows = [{"text": f"{i} {r['text']}", "label": r["label"]} for i, r in enumerate(mails(40)) if i % 4 != 1]
    data, out = write_rows(tmp_path / "mine.jsonl", rows), tmp_path / "out.jsonl"
    status, said, err = predict("--run", classifier, "--data", data, "--output", out)
    assert status == 0, err
    lines, metrics = lines_of(out), metrics_of(out)
    truth, guess = ([line[name] for line in lines] for name in ("label", "prediction"))
    report = sklearn_metrics.classification_report(truth, guess, output_dict=True, zero_division=0)
    balance = results_of(classifier)["data"]["balance"]["train"]
    most = max(balance, key=balance.get)
    assert metrics["commonest_class"]["label"] == most
    assert metrics["commonest_class"]["value"] == pytest.approx(truth.count(most) / len(truth))
    assert metrics["accuracy"]["value"] == pytest.approx(report["accuracy"])
    for name in ("ham", "spam"):
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("n", "support")):
            assert metrics["classes"][name][ours] == pytest.approx(report[name][theirs])
        assert re.search(rf"^ +{name} .* {truth.count(name)}$", said, re.M)
    assert re.search(rf"^commonest_class .* n 30, always '{most}'$", said, re.M)


def test_a_file_without_labels_is_answered_and_has_no_metrics(classifier, predict, tmp_path):
    data = as_csv(tmp_path / "test.csv", [{"id": i, "text": r["text"]} for i, r in enumerate(mails(5))])
    status, said, err = predict(
        "--run", classifier, "--data", data, "--output", tmp_path / "out.csv", "--keep-columns", "id"
    )
    assert status == 0, err
    assert "5 rows, 0 with a label" in said and "has no column 'label'; no metrics" in said
    assert list(pandas.read_csv(tmp_path / "out.csv")["id"]) == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "test.csv"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "has no column 'text'; name the column to read with --text-column; it has 'body', 'topic'"),
        (
            ["--text-column", "bdoy"],
            "no column 'bdoy' (did you mean body?); name the column to read with --text-column",
        ),
        (
            ["--text-column", "body", "--label-column", "topics"],
            "--label-column topics: the data has no such column (did",
        ),
        (["--text-column", "topic", "--label-column", "body"], "are none of the classes of the model, 'ham', 'spam'"),
        (
            ["--text-column", "topic", "--label-column", "long"],
            "its labels (6 different values) are none of the classes",
        ),
        (["--text-column", "number"], "column 'number' holds no text in any row"),
    ],
)
def test_a_message_about_columns_names_the_flags_of_predict(flags, message, classifier, predict, tmp_path):
    rows = [{"body": r["text"], "topic": r["label"], "number": i} for i, r in enumerate(mails(6))]
    rows = [row | {"long": f"{row['body']} {i} and what is said of nobody"} for i, row in enumerate(rows)]
    data = write_rows(tmp_path / "mine.jsonl", rows)
    status, _, err = predict("--run", classifier, "--data", data, *flags, "--output", tmp_path / "out.jsonl")
    assert status == 2 and message in err and len(err) < 320 and "nobody" not in err
    assert "--prompt-column" not in err and "--response-column" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_the_columns_of_an_instruction_run_are_named_by_either_flags(tutor, predict, tmp_path):
    data = write_rows(tmp_path / "mine.jsonl", [{"q": "Name a bird.", "about": "Red.", "a": "Robin"}])
    prompts = []
    for i, flags in enumerate(
        [
            ["--text-column", "q", "about", "--label-column", "a"],
            ["--prompt-column", "q", "--input-column", "about", "--response-column", "a"],
        ]
    ):
        out = tmp_path / f"{i}.jsonl"
        status, _, err = predict("--run", tutor[0], "--data", data, *flags, "--new-tokens", 1, "--output", out)
        assert status == 0, err
        prompts += [line["prompt"] for line in lines_of(out)]
        assert metrics_of(out)["loss"]["n"] == 1
    assert prompts[0] == prompts[1] and prompts[0].endswith("Name a bird.\n\n### Input:\nRed.")
    flags = ["--text-column", "q", "about", "a"]
    status, _, err = predict("--run", tutor[0], "--data", data, *flags, "--output", tmp_path / "x.jsonl")
    assert status == 2 and "--text-column: for a language model" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--run, --model or --adapter"),
        (["--run", "{run}", "--adapter", "{run}/adapter"], "--run and --adapter: choose one"),
        (["--run", "{run}/adapter"], "is a model without its run; name it with --model"),
        (["--model", "{run}/tensorboard"], "lacks config.json"),
        (["--model", "no/such/place"], "not a folder"),
        (["--run", "{run}", "--max-length", "513"], "--max-length 513: the context of the model is 512"),
    ],
)
def test_what_cannot_be_applied_is_refused(flags, message, classifier, predict, mail_file, tmp_path):
    flags = [flag.format(run=classifier) for flag in flags]
    status, _, err = predict(*flags, "--data", mail_file, "--output", tmp_path / "out.jsonl")
    assert status == 2 and message in err and not any(tmp_path.iterdir())


def test_a_run_whose_base_has_moved_says_how_to_name_it(classifier, tiny_model, predict, mail_file, tmp_path):
    run = shutil.copytree(classifier, tmp_path / "run")
    facts = json.loads((run / "adapter" / "adapter.json").read_text())
    facts["base"]["name"] = "tiny"  # a folder beside which the training was started
    (run / "adapter" / "adapter.json").write_text(json.dumps(facts))
    for where in (["--run", run], ["--adapter", run / "adapter"]):
        flags = [*where, "--data", mail_file, "--output", tmp_path / "out.jsonl", "--overwrite"]
        status, _, err = predict(*flags)
        assert status == 2 and "tiny was the base in training: if it has moved, name it with --model" in err
        assert len(err.replace(str(tmp_path), "")) <= 300
        assert predict(*flags, "--model", tiny_model)[0] == 0


def test_a_bare_language_model_is_told_of_a_prompt_that_is_missing(tiny_model, predict, tmp_path):
    data = write_rows(tmp_path / "mine.jsonl", [{"body": "a"}])
    status, _, err = predict("--model", tiny_model, "--data", data, "--output", tmp_path / "out.jsonl")
    assert status == 2 and "no column 'instruction'; name the column to read with --prompt-column" in err


def test_decoding_a_whole_text_is_not_asked_of_the_tokenizer(classifier, predict, tmp_path):
    """A text that was read whole is shown as it stands in the file, to the last blank."""
    text = "  two  blanks\u00a0and a tab\t"
    data = write_rows(tmp_path / "mine.jsonl", [{"text": text}])
    assert predict("--run", classifier, "--data", data, "--output", tmp_path / "out.jsonl")[0] == 0
    assert lines_of(tmp_path / "out.jsonl")[0]["text"] == text == GPT2.decode(GPT2.encode(text))
