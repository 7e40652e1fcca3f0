"""What wrong input gets: one clear message, exit status 2, no traceback, nothing half-written."""

import json
import re

import pytest
import torch
from forked import run_forked
from helpers import ROOT, Ended, command, mails, questions, run_in_process, run_script, words_of, write_rows
from hub_probe import Probe
from test_resume import kill_at_a_random_moment


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("wrong")
    good = mails(20)
    contents = {
        "good": good,
        "column": [{"body": r["text"], "label": r["label"]} for r in good],
        "single": [{**r, "label": "ham"} for r in good],
        "labels": [*good, {"text": "odd one", "label": "maybe"}],
        "types": [*good, {"text": 7, "label": "ham"}],
        "one-left": [{**r, "text": r["text"] if r["label"] == "ham" else ""} for r in good],
        "nothing-left": [{**r, "text": "  "} for r in good],
    }
    for name, rows in contents.items():
        write_rows(folder / f"{name}.jsonl", rows)
    (folder / "parts").mkdir()
    write_rows(folder / "parts" / "train.jsonl", contents["single"])
    write_rows(folder / "parts" / "test.jsonl", [{"text": "win a prize", "label": "spam"}])
    (folder / "empty.jsonl").write_text("")
    (folder / "run" / "adapter").mkdir(parents=True)
    write_rows(folder / "run" / "predictions.jsonl", good)
    (folder / "run" / "results.json").write_text("{}")
    (folder / "latin.csv").write_bytes("text,label\ncaf\xe9,ham\n".encode("latin-1"))
    (folder / "broken.jsonl").write_text('{"text": "a", "label": "ham"}\n{"text": \n')
    (folder / "questions.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions(20)))
    return folder


def refused(script, *flags):
    """What the script says where it runs in this process."""
    return message_of(run_in_process(script, *flags))


def message_of(done):
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") <= 1
    return " ".join(done.stderr.split())


CASES = [
    (["--data", "{files}/absent.jsonl"], "no such file"),
    (["--data", "{files}/empty.jsonl"], "the file is empty"),
    (["--data", "{files}/column.jsonl"], "'text' is missing .*the file has 'body', 'label'"),
    (["--data", "{files}/single.jsonl"], "only one class .*'ham'"),
    (
        ["--data", "{files}/labels.jsonl", "--labels", "ham", "spam"],
        "labels 'maybe' are not among the expected 'ham', 'spam'",
    ),
    (["--data", "{files}/types.jsonl"], "row 21: column 'text' holds a number .int., not text"),
    (["--data", "{files}/latin.csv"], r"not UTF-8 \(byte 14\)"),
    (["--data", "{files}/broken.jsonl"], "line 2"),
    (["--data", "{files}/one-left.jsonl"], "only one class"),
    (["--data", "{files}/nothing-left.jsonl"], "no training examples remain"),
    (["--data", "{files}/good.jsonl", "--text-column", "subject"], "'subject' is missing .*'text', 'label'"),
    (["--data", "{files}/good.jsonl", "--lora-rank", "0"], "--lora-rank 0: must be at least 1"),
    (["--data", "{files}/good.jsonl", "--lora-rank", "17"], "--lora-rank 17: must be 1 to 16"),
    (["--data", "{files}/good.jsonl", "--last-blocks", "4"], "--last-blocks 4: .* has 3 blocks"),
    (["--data", "{files}/good.jsonl", "--last-blocks", "0"], "--last-blocks 0"),
    (["--data", "{files}/good.jsonl", "--max-length", "513"], "--max-length 513: .* 512 tokens"),
    (["--data", "{files}/good.jsonl", "--max-steps", "5", "--warmup-steps", "6"], "--warmup-steps 6: .* 5 steps"),
    (["--data", "{files}/good.jsonl", "--mixed-precision", "fp16"], "fp16: needs a GPU"),
    (["--data", "{files}/good.jsonl", "--lr", "nan"], "--lr nan"),
    (["--data", "{files}/good.jsonl", "--pad-to", "513"], "--pad-to 513: .* 512 tokens"),
    (["--data", "{files}/good.jsonl", "--optimizer", "sgd"], "--optimizer sgd: needs --lr"),
    (["--data", "{files}/good.jsonl", "--labels", "ham", "spam", "ham"], "--labels ham: a class is named twice"),
    (["--data", "{files}/parts"], "only one class"),
    (["--data", "{files}/good.jsonl", "--batch-size", "0", "--lr", "-1"], "--batch-size 0: .* --lr -1.0"),
    (["--data", "{files}/good.jsonl", "--head", "lm-token"], "--untie-head"),
    (["--data", "{files}/good.jsonl", "--subset", "report"], "--subset report: the report has no rule"),
    (["--dataset", "enrom"], "--dataset enrom: this script knows enron, imdb, nli_med, sick, spamassassin"),
    (["--data", "https://example.org/mails.csv"], "addresses are not read; download the file, and name it"),
    (["--data", "/"], "--data /: is the whole disk; name the file or folder"),
    (["--data", "{files}/run"], "is a run folder, with what a run wrote; name the file or folder of the data"),
    (["--data", ""], "--data: is empty; name a path"),
    (["--data", "{files}/good.jsonl", "--encoding", "idna"], "--encoding idna: unknown; common ones are utf-8"),
    (["--dataset", "alpaca"], "--dataset alpaca: this script knows enron"),
    ([], "--dataset or --data"),
    (["--data", "{files}/good.jsonl", "--lora-rnk", "4"], "lora-rank"),
    (["--data", "{files}/good.jsonl", "--method", "lara"], "lora"),
]


@pytest.mark.parametrize(("flags", "message"), CASES, ids=lambda x: " ".join(x) if isinstance(x, list) else "")
def test_a_classifier_refuses_wrong_input(flags, message, files, tiny_model, tmp_path):
    flags = [flag.format(files=files) for flag in flags]
    text = refused("finetune_cls", *flags, "--model", tiny_model, "--output-dir", tmp_path / "run")
    assert re.search(message, text), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data", "{files}/good.jsonl"], "'instruction', 'response' are missing .*'text', 'label'"),
        (["--data", "{files}/questions.jsonl", "--input-column", "about"], "'about' is missing"),
        (["--data", "{files}/questions.jsonl", "--max-length", "20"], "--max-length 20: .*no room for response"),
        (["--data", "{files}/questions.jsonl", "--method", "head"], "--untie-head"),
        (["--data", "{files}/questions.jsonl", "--top-p", "2"], "--top-p 2.0"),
        (
            ["--data", "{files}/questions.jsonl", "--new-tokens", "512"],
            "--new-tokens 512: the context of .* 512 tokens",
        ),
        (["--dataset", "imdb"], "--dataset imdb: this script knows alpaca, instructions"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_instruction_tuning_refuses_wrong_input(flags, message, files, tiny_model, tmp_path):
    flags = [flag.format(files=files) for flag in flags]
    text = refused("finetune_ift", *flags, "--model", tiny_model, "--output-dir", tmp_path / "run")
    assert re.search(message, text), text
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("script", sorted(path.stem for path in (ROOT / "scripts").glob("*.py")))
def test_any_script_refuses_a_flag_that_is_none(script):
    assert "--colour" in refused(script, "--colour", "red")


@pytest.mark.parametrize("script", ["finetune_ift", "study"])
def test_a_refusal_ends_the_process_of_a_script_with_status_2(script):
    assert "--colour" in message_of(run_script(script, "--colour", "red"))


@pytest.mark.parametrize("model", ["gpt5", "{tmp}/nowhere", "{tmp}"])
def test_an_unknown_model_is_refused(model, files, tmp_path):
    model = model.format(tmp=tmp_path)
    text = refused("finetune_cls", "--data", files / "good.jsonl", "--model", model, "--output-dir", tmp_path / "run")
    assert f"--model {model}" in text


def test_data_and_model_are_complained_of_together(files, tmp_path):
    text = refused("finetune_cls", "--data", files / "empty.jsonl", "--model", "gpt5")
    assert "the file is empty" in text and "--model gpt5" in text


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory):
    """A process without a network."""
    process = Probe("http://127.0.0.1:9", tmp_path_factory.mktemp("home"))  # nobody listens on the discard port
    yield process
    process.close()


@pytest.mark.parametrize(
    ("script", "dataset", "bundled"),
    [("finetune_cls", "enron", "--dataset spamassassin"), ("finetune_ift", "alpaca", "--dataset instructions")],
)
def test_without_a_network_one_message_names_the_bundled_command_that_works(script, dataset, bundled, cut_off):
    done = cut_off.ask(script=[script, *words_of(script, ["--dataset", dataset, "--lora-rank", 16])])
    text = message_of(Ended(done["status"], done["printed"], done["said"]))
    assert f"--dataset {dataset}" in text and "--model gpt2" in text
    assert f"accelerate launch scripts/{script}.py {bundled} --model gpt2-nano" in text


def test_an_output_folder_that_holds_a_run_is_left_alone(files, tiny_model, tmp_path):
    flags = ["--data", files / "good.jsonl", "--model", tiny_model, "--max-steps", 2, "--output-dir", tmp_path / "run"]
    assert run_in_process("finetune_cls", *flags).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert "--overwrite" in refused("finetune_cls", *flags)
    assert "--overwrite" in refused("finetune_cls", *flags, "--resume")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_a_folder_with_other_files_is_not_written_into(files, tiny_model, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    flags = ["--data", files / "good.jsonl", "--model", tiny_model, "--output-dir", tmp_path, "--overwrite"]
    assert "thesis.tex" in refused("finetune_cls", *flags)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_only_the_main_process_complains(files, tiny_model):
    flags = ["--data", files / "single.jsonl", "--model", tiny_model]
    message_of(done := run_script("finetune_cls", *flags, processes=2))
    assert done.stderr.count("error: only one class") == 1


def test_processes_that_do_not_see_each_other_are_refused(files, tiny_model, tmp_path):
    """What ddp.yaml gives without GPUs and without ACCELERATE_USE_CPU: two runs that would write the same files."""
    flags = ["--data", files / "good.jsonl", "--model", tiny_model, "--output-dir", tmp_path / "run"]
    message_of(done := run_script("finetune_cls", *flags, processes=2, ACCELERATE_USE_CPU="false"))
    assert done.stderr.count("do not see each other") == 1
    assert not (tmp_path / "run").exists()


def test_a_full_disk_while_saving_leaves_the_previous_checkpoint_readable(files, tiny_model, tmp_path):
    folder = tmp_path / "run"
    flags = ["--data", files / "good.jsonl", "--model", tiny_model, "--max-steps", 400, "--eval-every", 200]
    flags += ["--save-every", 2, "--output-dir", folder]
    kill_at_a_random_moment("finetune_cls", 1, flags, folder, seed=1)
    state = folder / "checkpoint" / "state.pt"
    before = state.read_bytes()
    words = command("finetune_cls", *flags, "--resume")
    done = run_forked(words[1:], largest_file=len(before) // 2)  # as on a disk that is full
    assert done.returncode == 2, done.stderr
    assert "could not be written" in done.stderr and "--resume" in done.stderr
    assert "Traceback" not in done.stderr
    assert state.read_bytes() == before
    assert torch.load(state, weights_only=True)["record"]["step"] >= 2
    assert {path.name for path in state.parent.iterdir()} == {"state.pt"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--run", "{tmp}", "--data", "{files}/good.jsonl"], "holds no finished run"),
        (["--run", "{run}", "--data", "{files}/absent.csv"], "no such file"),
        (["--run", "{run}", "--data", "{files}/column.jsonl"], "no column 'text'"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_predict_refuses_wrong_input(flags, message, files, finished_run, tmp_path):
    text = refused("predict", *(flag.format(tmp=tmp_path, run=finished_run, files=files) for flag in flags))
    assert re.search(message, text), text


@pytest.fixture(scope="module")
def finished_run(files, tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--data", files / "good.jsonl", "--model", tiny_model, "--max-steps", 2, "--output-dir", folder]
    assert run_in_process("finetune_cls", *flags).returncode == 0
    return folder


def test_predict_refuses_a_run_whose_weights_are_damaged(finished_run, files):
    weights = finished_run / "adapter" / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    text = refused("predict", "--run", finished_run, "--data", files / "good.jsonl")
    weights.write_bytes(content)
    assert "adapter_model.safetensors" in text and "damaged" in text


def test_predict_refuses_a_run_whose_base_has_changed(finished_run, files):
    path = finished_run / "adapter" / "adapter.json"
    content = path.read_text()
    facts = json.loads(content)
    facts["base"]["sha256"] = "0" * 64
    path.write_text(json.dumps(facts))
    text = refused("predict", "--run", finished_run, "--data", files / "good.jsonl")
    path.write_text(content)
    assert "other weights" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompt", "x"], "--model, --run or --adapter"),
        (["--model", "gpt2-nano", "--prompt", " "], "--prompt: is empty"),
        (["--model", "gpt2-nano", "--prompt", "x", "--compare"], "--compare"),
        (["--run", "{run}", "--prompt", "x"], "is a classifier"),
        (["--run", "{run}", "--adapter", "{run}/adapter", "--prompt", "x"], "--run and --adapter: choose one"),
        (["--model", "gpt2-nano", "--adapter", "{run}/adapter", "--prompt", "x"], "is a classifier's"),
        (["--model", "gpt2-nano", "--adapter", "absent", "--prompt", "x"], "absent: no such folder"),
        (["--model", "gpt2-nano", "--prompt", "x", "--temperature", "-1"], "--temperature -1"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_generate_refuses_wrong_input(flags, message, finished_run):
    text = refused("generate", *(flag.format(run=finished_run) for flag in flags))
    assert message in text


@pytest.mark.parametrize("form", ["raw", "instruction"])
def test_a_prompt_longer_than_the_context_is_refused_whole_and_one_that_fits_is_not(form):
    if form == "raw":
        flags = ["--raw", "--prompt", "x", "end " * 1023]
        message = "--prompt 'end end end end end end end end end end ': has 1,024 tokens; the model's context is 1,024"
    else:
        flags = ["--prompt", "Sum up.", "--input", "many words " * 600]
        message = "--prompt 'Sum up.': has 1,240 tokens in its form; the model's context is 1,024"
    text = refused("generate", "--model", "gpt2-nano", *flags)
    assert f"{message}, answer included; shorten it" in text and ("or --input" in text) == (form == "instruction")
    done = run_in_process("generate", "--model", "gpt2-nano", "--raw", "--prompt", "end " * 1022)
    assert done.returncode == 0, done.stderr
