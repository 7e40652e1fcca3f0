"""Files that survive a writer's failure, and what may be written into the folder of a run."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from training.flags.common import RunArgs
from training.storage.files import (
    NoRoom,
    load_tensors,
    replace_file,
    replace_folder,
    save_tensors,
    write_json,
    write_lines,
)
from training.storage.run_folder import STATE, check_folder, default_folder, prepare_folder

NEW, RESUME, OVERWRITE = RunArgs(), RunArgs(resume=True), RunArgs(overwrite=True)


class DiskFull(OSError):
    """Stands for whatever stops a writer half way."""


def fail_half_way(path):
    (path / "part" if path.is_dir() else path).write_text("half")
    raise DiskFull("no space left on device")


def write_folder(content):
    def write(path):
        (path / "weights").write_text(content)

    return write


def tree(folder):
    """What a folder holds, by relative path; empty folders too."""
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else None for p in sorted(folder.rglob("*"))}


# One file.


def test_a_file_is_written_into_folders_that_are_made_for_it(tmp_path):
    replace_file(tmp_path / "a" / "b" / "file", lambda new: new.write_text("content"))
    assert tree(tmp_path) == {"a": None, "a/b": None, "a/b/file": "content"}


def test_a_file_is_replaced_by_the_new_one(tmp_path):
    (tmp_path / "file").write_text("old")
    replace_file(tmp_path / "file", lambda new: new.write_text("new"))
    assert tree(tmp_path) == {"file": "new"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "file").write_text("old")

    def write(new):
        assert new.parent == tmp_path, "a rename is atomic within one folder only"
        new.write_text("half")
        raise error

    with pytest.raises(error):
        replace_file(tmp_path / "file", write)
    assert tree(tmp_path) == {"file": "old"}


def test_a_writer_that_fails_before_writing_anything_leaves_nothing(tmp_path):
    def write(new):
        raise DiskFull

    with pytest.raises(OSError, match="could not be written"):
        replace_file(tmp_path / "file", write)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOENT, errno.EACCES, errno.EIO])
def test_room_is_asked_for_where_there_is_none(number, tmp_path):
    def write(new):
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError) as failed:
        replace_file(tmp_path / "file", write)
    full = number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    assert os.strerror(number) in str(failed.value) and "is intact" in str(failed.value)
    assert ("make room" in str(failed.value)) == isinstance(failed.value, NoRoom) == full
    assert "--resume" not in str(failed.value)  # which training.flags.cli says where there is something to go on with


def test_where_a_library_does_not_say_why_it_stops_room_is_what_is_lacking(tmp_path):
    with pytest.raises(NoRoom, match="unexpected pos 96512.*make room"):
        replace_file(tmp_path / "file", lambda new: (_ for _ in ()).throw(OSError("unexpected pos 96512 vs 96400")))


def test_the_old_file_can_be_read_until_the_new_one_is_whole(tmp_path):
    (tmp_path / "file").write_text("old")
    seen = []

    def write(new):
        new.write_text("new")
        seen.append((tmp_path / "file").read_text())

    replace_file(tmp_path / "file", write)
    assert seen == ["old"]


# One folder.


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    replace_folder(tmp_path / "best", lambda new: (new / "first").write_text("1"))
    replace_folder(tmp_path / "best", write_folder("2"))
    assert tree(tmp_path) == {"best": None, "best/weights": "2"}


def test_a_folder_is_made_with_the_folders_above_it(tmp_path):
    replace_folder(tmp_path / "run" / "best", write_folder("1"))
    assert tree(tmp_path)["run/best/weights"] == "1"


def test_a_writer_that_fails_leaves_the_old_folder_and_nothing_else(tmp_path):
    replace_folder(tmp_path / "best", write_folder("old"))
    with pytest.raises(OSError, match="could not be written"):
        replace_folder(tmp_path / "best", fail_half_way)
    assert tree(tmp_path) == {"best": None, "best/weights": "old"}


def test_what_a_kill_left_beside_a_folder_does_not_get_into_the_next_one(tmp_path):
    for leftover in (".best.new", ".best.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "junk").write_text("half")
    replace_folder(tmp_path / "best", write_folder("1"))
    assert tree(tmp_path) == {"best": None, "best/weights": "1"}


def test_a_folder_that_cannot_take_its_place_leaves_the_old_one_there(tmp_path, monkeypatch):
    replace_folder(tmp_path / "best", write_folder("old"))
    rename = Path.rename

    def only_away(self, target):
        if self.name == ".best.new":
            raise DiskFull
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", only_away)
    with pytest.raises(OSError, match="could not be written"):
        replace_folder(tmp_path / "best", write_folder("new"))
    assert (tmp_path / "best" / "weights").read_text() == "old"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    (tmp_path / ".best.old").mkdir()
    (tmp_path / ".best.old" / "weights").write_text("old")
    with pytest.raises(OSError, match="could not be written"):
        replace_folder(tmp_path / "best", fail_half_way)
    assert "old" in tree(tmp_path).values()


# Content.


def test_lines_of_json_come_back_as_they_were(tmp_path):
    rows = [
        {"row": 0, "text": 'two\nlines and "quotes"', "probabilities": {"ham": 0.25, "spam": 0.75}},
        {"row": 1, "text": "café ☕ \u2028 \x85", "label": None},
        {},
    ]
    write_lines(tmp_path / "rows.jsonl", rows)
    lines = (tmp_path / "rows.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == "" and [json.loads(line) for line in lines] == rows
    assert "café ☕" in lines[1], "text stays readable"


def test_no_rows_make_an_empty_file(tmp_path):
    write_lines(tmp_path / "rows.jsonl", [])
    assert tree(tmp_path) == {"rows.jsonl": ""}


def test_json_comes_back_as_it_was(tmp_path):
    content = {"a": [1, 2.5, None, "é"], "b": {"c": True}}
    write_json(tmp_path / "results.json", content)
    text = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert json.loads(text) == content and text.endswith("}\n")


def test_what_json_cannot_say_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "results.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "results.json", {"a": torch.ones(1)})
    assert json.loads((tmp_path / "results.json").read_text()) == {"a": 1} and len(tree(tmp_path)) == 1


def test_tensors_come_back_bit_for_bit_whatever_their_layout(tmp_path):
    g = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn(3, 5, generator=g).t(),
        "b": torch.randn(7, generator=g).to(torch.bfloat16),
        "c": torch.tensor(3),
    }
    save_tensors(tmp_path / "t.safetensors", tensors)
    loaded = load_tensors(tmp_path / "t.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[n], tensors[n]) and loaded[n].dtype == tensors[n].dtype for n in tensors)


@pytest.mark.parametrize("content", [None, b"", b"half a file", b"\x10\x00\x00\x00\x00\x00\x00\x00{"])
def test_missing_and_damaged_tensors_are_named(content, tmp_path):
    path = tmp_path / "t.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="t.safetensors is missing or damaged"):
        load_tensors(path)


# The folder of a run.


def unfinished_run(folder, checkpoint=True):
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.yaml").touch()
    if checkpoint:
        (folder / STATE).parent.mkdir()
        (folder / STATE).write_text("state")
    return folder


def finished_run(folder):
    unfinished_run(folder, checkpoint=False)
    (folder / "results.json").write_text("{}")
    return folder


def refusal(folder, run):
    """What `check_folder` says; it names the folder and changes nothing."""
    before = tree(folder) if folder.is_dir() else None
    with pytest.raises(ValueError) as refused:
        check_folder(folder, run.overwrite, run.resume)
    assert str(folder) in str(refused.value)
    assert before is None or tree(folder) == before
    return str(refused.value)


@pytest.mark.parametrize("run", [NEW, RESUME, OVERWRITE], ids=["new", "resume", "overwrite"])
def test_a_new_or_empty_folder_starts_from_the_beginning(run, tmp_path):
    assert check_folder(tmp_path / "new", run.overwrite, run.resume) is False
    assert not (tmp_path / "new").exists()
    assert check_folder(tmp_path, run.overwrite, run.resume) is False


def test_a_finished_run_is_kept_unless_overwritten(tmp_path):
    folder = finished_run(tmp_path / "run")
    for run in (NEW, RESUME):
        message = refusal(folder, run)
        assert "finished run" in message and "unfinished" not in message and "--overwrite" in message
    assert check_folder(folder, OVERWRITE.overwrite, OVERWRITE.resume) is False


@pytest.mark.parametrize("checkpoint", [True, False])
def test_an_unfinished_run_is_refused_with_both_ways_out(checkpoint, tmp_path):
    message = refusal(unfinished_run(tmp_path / "run", checkpoint), NEW)
    assert "unfinished run" in message and "--resume" in message and "--overwrite" in message


def test_an_unfinished_run_goes_on_from_its_checkpoint(tmp_path):
    assert check_folder(unfinished_run(tmp_path / "run"), RESUME.overwrite, RESUME.resume) is True


def test_an_unfinished_run_without_a_checkpoint_starts_again(tmp_path):
    assert check_folder(unfinished_run(tmp_path / "run", checkpoint=False), RESUME.overwrite, RESUME.resume) is False


def test_an_overwritten_run_does_not_go_on_from_the_checkpoint(tmp_path):
    assert check_folder(unfinished_run(tmp_path / "run"), OVERWRITE.overwrite, OVERWRITE.resume) is False


@pytest.mark.parametrize("run", [NEW, RESUME, OVERWRITE], ids=["new", "resume", "overwrite"])
def test_a_folder_with_other_files_is_never_touched(run, tmp_path):
    folder = finished_run(tmp_path / "run")
    (folder / "thesis.tex").write_text("years of work")
    assert "holds other files (thesis.tex)" in refusal(folder, run)


@pytest.mark.parametrize("run", [NEW, RESUME, OVERWRITE], ids=["new", "resume", "overwrite"])
def test_a_base_is_no_run_and_what_a_run_reads_is_never_cleared(run, tmp_path):
    (tmp_path / "m" / "model").mkdir(parents=True)
    assert "holds no run, but model; choose a new folder" in refusal(tmp_path / "m", run)
    folder = finished_run(tmp_path / "run")
    (tmp_path / "link").symlink_to(folder)
    if run is OVERWRITE:
        for read in (folder, folder / "adapter", tmp_path / "link" / "adapter"):
            with pytest.raises(ValueError, match="holds --model .*, and a run clears its folder"):
                check_folder(folder, run.overwrite, run.resume, [("data", None), ("model", str(read))])
        assert not check_folder(folder, run.overwrite, run.resume, [("model", "gpt2"), ("data", tmp_path / "rows.csv")])


@pytest.mark.parametrize("run", [NEW, RESUME, OVERWRITE], ids=["new", "resume", "overwrite"])
def test_a_file_in_the_place_of_the_folder_is_refused(run, tmp_path):
    (tmp_path / "run").write_text("a file")
    assert "is a file" in refusal(tmp_path / "run", run)


def test_what_a_kill_left_behind_counts_as_ours(tmp_path):
    folder = unfinished_run(tmp_path / "run")
    (folder / ".adapter.new").mkdir()
    (folder / ".predictions.jsonl.new").write_text("half")
    assert check_folder(folder, RESUME.overwrite, RESUME.resume) is True
    assert check_folder(folder, OVERWRITE.overwrite, OVERWRITE.resume) is False


def test_a_run_killed_while_it_wrote_its_results_can_go_on(tmp_path):
    folder = unfinished_run(tmp_path / "run")
    (folder / ".results.json.new").write_text('{"args":')
    assert check_folder(folder, RESUME.overwrite, RESUME.resume) is True


def test_the_folder_is_made_and_cleared_unless_the_run_goes_on(tmp_path):
    folder = unfinished_run(tmp_path / "runs" / "one")
    before = tree(folder)
    prepare_folder(folder, resuming=True)
    assert tree(folder) == before != {}
    prepare_folder(folder, resuming=False)
    assert folder.is_dir() and tree(folder) == {}
    prepare_folder(tmp_path / "runs" / "two", resuming=False)
    assert (tmp_path / "runs" / "two").is_dir()


def test_a_folder_that_cannot_be_made_is_refused_with_its_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output-dir .*cannot be written"):
        prepare_folder(tmp_path / "file" / "run", resuming=False)


def usual_folder(**changed):
    given = {"dataset": "enron", "model": "gpt2", "method": "lora", "seed": 3} | changed
    spelled = {name: given.get(name) or "mine" for name in ("dataset", "model", "method")} | {"seed": given["seed"]}
    spelled["model"] = Path(spelled["model"]).name
    return default_folder("finetune_cls", "{dataset}-{model}-{method}-seed{seed}".format(**spelled), given, spelled)


def test_the_usual_folder_names_what_was_run():
    assert usual_folder() == Path("runs/finetune_cls/enron-gpt2-lora-seed3")
    assert usual_folder(method="full", seed=0, overwrite=True, save_every=5).name == "enron-gpt2-full-seed0"


def test_the_usual_folders_of_runs_that_differ_in_any_flag_differ():
    flags = [{}, {"lora_rank": 8}, {"lora_rank": 4}, {"lr": 1e-3}, {"epochs": 3.0}, {"max_length": 128}]
    flags += [{"dataset": None, "data": Path(name)} for name in ("mine.csv", "mine.jsonl", "other/mine.csv")]
    flags += [{"model": "own"}, {"model": "/models/own"}, {"lora_targets": ("q", "v")}, {"lora_targets": ("q",)}]
    assert len({usual_folder(**changed) for changed in flags}) == len(flags)
    assert usual_folder(data=Path("mine.csv")) == usual_folder(data=Path("mine.csv").absolute())


def test_a_measurement_that_is_no_number_is_left_out_of_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("inf"), "b": {"c": float("nan"), "d": 1.5}, "e": [1, 2]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": {"d": 1.5}, "e": [1, 2]}
