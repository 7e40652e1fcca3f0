"""What stands under a column: what moves with what, and what the scale hides."""

import math
import re

import numpy as np
import pytest
from helpers import ROOT
from report_rows import CLS, cells_of, classifier, found_in, line, of_runs, places, table_file, tutor
from scipy import stats

from evidence.kinds import ACCURACY, PERPLEXITY
from reproduce import report
from reproduce.confounds import confounds, effective_scale, first_step
from reproduce.notes import comparison_note, disagreements, identical_notes, size_notes, too_small
from reproduce.sections import MOVING, SMALL, block_of, verdict
from reproduce.tables import Row, flags_of, read_table


@pytest.mark.parametrize("scaling", ["standard", "rslora", "paper"])
@pytest.mark.parametrize("init", ["standard", "paper"])
def test_the_first_step_grows_with_the_rank_as_in_a_simulated_update(scaling, init):
    """y = s B A x after B's entries moved by lr in the direction of the gradient's sign."""
    inputs, rng, moved, told = 256, np.random.default_rng(0), [], []
    for rank in (2, 32):
        s = {"lora_rank": rank, "lora_alpha": 16.0, "lora_scaling": scaling, "lora_init": init}
        bound = 1 / math.sqrt(rank if init == "paper" else inputs)
        a, x = rng.uniform(-bound, bound, (400, rank, inputs)), rng.normal(size=inputs)
        b = np.sign(a @ x)  # of one output, the loss falling as it grows
        moved.append(effective_scale(s) * np.mean(np.sum(b * (a @ x), -1)))
        told.append(first_step(s))
    assert moved[1] / moved[0] == pytest.approx(told[1] / told[0], rel=0.1)


FULL, LORA = "--method full", "--method lora --lora-scaling paper --lora-init paper"


COSINE, CONSTANT = "--schedule cosine --warmup-ratio 0.2", "--schedule constant --warmup-steps 0 --max-grad-norm None"


PUBLISHED = {
    "table 2": (
        [
            f"--model {model} {FULL} --max-length {n} --batch-size {batch}"
            for model, n, batch in (
                ("gpt2", 256, 32),
                ("gpt2", 1024, 4),
                ("gpt2-medium", 256, 8),
                ("gpt2-medium", 1024, 4),
            )
        ],
        {("token count", "batch size")},
    ),
    "table 3, sentiment": (
        [f"{FULL} {CONSTANT} --epochs 1 --batch-size 8", f"{LORA} {COSINE} --epochs 2 --batch-size 32"],
        {("method", "epochs"), ("method", "batch size"), ("method", "schedule"), ("method", "clipping")},
    ),
    "table 4, alpha = rank": (
        [f"{LORA} --lora-rank {r} --lora-alpha {r}" for r in (2, 4, 8, 16, 32)],
        {("rank", "adapters' step size")},
    ),
    "table 5, entailment": (
        [
            f"{LORA} --last-blocks {n} --batch-size {batch} --epochs {epochs} --eval-batches 5"
            for n, batch, epochs in ((18, 2, 1), (20, 4, 1), (24, 4, 2))
        ],
        {("trained blocks", "batch size"), ("trained blocks", "epochs"), ("trained blocks", "validation examples")},
    ),
    "a second epoch": (
        [f"{LORA} --epochs 1 --batch-size 16", f"{LORA} --epochs 2 --batch-size 32"],
        {("batch size", "epochs")},
    ),
}


@pytest.mark.parametrize("table", PUBLISHED)
def test_what_moves_with_a_swept_flag_is_told(table):
    commands, expected = PUBLISHED[table]
    found = confounds([flags_of(f"{CLS} {command}") for command in commands])
    assert set().union(*(one.names for one in found)) == expected
    for one in found:
        assert one.swept.name in one.text and all(other.name in one.text for other in one.moving)


CLEAN = {
    "rank at one alpha": [f"--lora-rank {r} --lora-alpha 16" for r in (2, 4, 8, 16, 32)],
    "methods, each with its own rate": ["--method full --lr 1e-4 --epochs 2", "--method lora --lr 1e-3 --epochs 2"],
    "model and token count crossed": [f"--model {m} --max-length {n}" for m in ("gpt2", "gpt2-xl") for n in (64, 128)],
    "one thing after the other": [
        f"--model gpt2-large {CONSTANT}",
        f"--model gpt2-large {COSINE} --max-grad-norm None",
        f"--model gpt2-large {COSINE}",
        f"--model gpt2 {COSINE}",
    ],
    "batch size alone": ["--batch-size 2", "--batch-size 4"],
    "one row": ["--lora-rank 2"],
}


@pytest.mark.parametrize("case", CLEAN)
def test_a_clean_sweep_is_not_warned_of(case):
    assert confounds([flags_of(f"{CLS} {command}") for command in CLEAN[case]]) == []


def test_a_rate_that_moves_with_the_rank_is_told():
    (found,) = confounds([flags_of(f"{CLS} --lora-rank {r} --lr {lr}") for r, lr in ((2, 1e-3), (8, 2e-3))])
    assert found.names == {("rank", "learning rate")}


REAL = [
    ROOT / "reproduce" / f"{name}.sh"
    for name in ("table2_tokens", "table3_methods", "table4_rank", "table5_blocks", "table6_rank_large")
]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_tables_2_to_6_are_confounded_as_published_and_clean_when_corrected(path):
    rows = [row for row in read_table(path).rows if row.column not in ("parameters", "memory", "minutes")]
    found = {"published": [], "corrected": []}
    for name in {row.column for row in rows}:
        for version, told in found.items():
            here = [row for row in rows if (row.column, row.version) == (name, version)]
            told += confounds([flags_of(row.command) for row in here])
    assert rows and found["published"] and found["corrected"] == []


def test_a_rate_that_a_run_chose_itself_is_not_what_the_table_sets(tmp_path):
    lines = [line(f"rank {rank}", f"r{rank}", flags=f"--lora-rank {rank}") for rank in (2, 8)]
    rates = (f"{one.row.command} --lr {lr}" for one, lr in zip(lines, (1e-3, 2e-3), strict=True))
    given = [one._replace(row=one.row._replace(command=c)) for one, c in zip(lines, rates, strict=True)]
    for one, rank, lr in zip(lines, (2, 8), (1e-3, 2e-3), strict=True):
        classifier(tmp_path / one.key, range(9), args={"method": "lora", "lora_rank": rank, "lr": lr})
    for asked, expected in ((lines, []), (given, [{("rank", "learning rate")}])):
        rows = [cell.settings for cell in cells_of(asked, found_in(tmp_path))]
        assert [one.names for one in confounds(rows)] == expected


def test_what_a_smaller_scale_hides_is_told_from_the_rows_as_they_are_written(tmp_path):
    """Two token counts that are one at the nano scale, where the batch size alone is left to differ."""
    flags = f"{CLS} --dataset enron --model gpt2 --max-length %d --batch-size %d"
    rows = [Row("corrected", "spam", f"{n}", "", "", flags % (n, batch)) for n, batch in ((512, 32), (1024, 4))]
    table_file(tmp_path / "tables", "table2_tokens", rows)
    report.main(report.Args(tmp_path, tmp_path, "nano", tmp_path / "out", tmp_path / "tables"))
    text = (tmp_path / "out/RESULTS.md").read_text()
    assert "--batch-size 32" in text and "--batch-size 4" in text and text.count("--max-length 128") == 2
    warning = "- Corrected: token count (512 / 1024) does not change alone; with it: batch size (32 / 4)."
    assert text.count(warning) == text.count("does not change alone") == 1


def test_a_column_in_which_other_settings_move_is_marked(tmp_path):
    """The mark stands over the verdicts, and what moves is folded."""
    for moves, flags in (("", "--lora-rank {0}"), (MOVING, "--lora-rank {0} --batch-size {0}")):
        lines = [line(f"rank {r}", f"{r}{moves}", seed=s, flags=flags.format(r)) for r in (2, 8) for s in range(4)]
        for one in lines:
            args = {name: value for name, value in flags_of(one.row.command).items() if name != "seed"}
            classifier(tmp_path / one.key, range(150), 200, args=args)
        block = block_of("spam", {"corrected": cells_of(lines, found_in(tmp_path))})
        assert f"verdict {moves}".strip() in block.grid.header
        folded = [note for fold in block.folds for note in fold.notes]
        assert any("rank (2 / 8) does not change alone; with it: batch size" in note for note in folded) == bool(moves)


def verdicts(tmp_path, published, corrected, given=("90.0", "91.0")):
    """A column of two rows with these numbers right of 200, four seeds that differ by one."""
    column = {}
    for version, rights in (("published", published), ("corrected", corrected)):
        lines = []
        for label, right, claim in zip("ab", rights, given, strict=True):
            for seed in range(4):
                lines.append(line(label, f"{version}{label}", version, seed=seed, given=(claim, "-")))
                classifier(tmp_path / lines[-1].key, range(right + seed), 200)
        column[version] = cells_of(lines, found_in(tmp_path))
    return column


def test_where_the_versions_disagree_a_sentence_says_so(tmp_path):
    (note,) = disagreements(verdicts(tmp_path / "x", (150, 110), (150, 150)))
    assert note == "Against a: b is worse as published, not told apart when corrected."
    (note,) = disagreements(verdicts(tmp_path / "y", (150, 110), (110, 150)))
    assert note == "Against a: b is worse as published, better when corrected."
    assert disagreements(verdicts(tmp_path / "z", (150, 110), (160, 120))) == []
    assert disagreements({"corrected": []}) == []


def test_a_claim_smaller_than_what_could_be_found_is_marked(tmp_path):
    def marks(where, given, right=149):
        a, b = verdicts(tmp_path / where, (150, right), (150, right), given)["corrected"]
        assert verdict(a, a, ACCURACY) == "–" and (SMALL in verdict(b, a, ACCURACY)) == too_small(b, a, ACCURACY)
        return verdict(b, a, ACCURACY)

    assert marks("x", ("90.0", "91.0")) == marks("y", ("0.90", "0.91")) == f"not told apart {SMALL}"
    assert marks("l", ("60.0", "95.0")) == marks("s", ("60.0", "60.0")) == marks("-", ("-", "-")) == "not told apart"
    assert marks("w", ("60.0", "95.0"), right=110) == "worse" and marks("b", ("60.0", "95.0"), right=190) == "better"


def test_accuracies_that_never_differ_tell_what_could_be_found_and_perplexities_do_not(tmp_path):
    cells = of_runs(tmp_path, {"x": 150, "y": 150}, "xy")
    note = comparison_note(cells, ACCURACY)
    # Two examples of 202 that differ, one each way.
    least = (stats.t.ppf(0.975, 201) + stats.t.ppf(0.8, 201)) * math.sqrt(2 / 201 / 202)
    assert (
        cells[1].comparison.detectable == pytest.approx(least, rel=1e-4)
        and f"a difference of {100 * least:.1f} points." in note
    )
    lines = [line(name, f"t{name}", seed=seed) for name in "ab" for seed in range(4)]
    for one in lines:
        tutor(tmp_path / one.key, [2.0, 3.0, 1.0], [2, 3, 4])
    answered = cells_of(lines, found_in(tmp_path))
    note = comparison_note(answered, PERPLEXITY)
    assert note.startswith("n = 3 test examples; every row scores the same on each, which does not tell")


def test_where_the_seeds_are_too_few_a_note_says_that_nothing_is_claimed(tmp_path):
    lines = [line(label, label, seed=seed) for label in "ab" for seed in range(3)]
    for one in lines:
        classifier(tmp_path / one.key, range(180 if one.row.label == "a" else 60), 200, ham=60)
    cells = cells_of(lines, found_in(tmp_path))
    assert comparison_note(cells, ACCURACY) == "n = 200 test examples; 3 seeds by themselves claim nothing."
    assert verdict(cells[1], cells[0], ACCURACY) == "no claim; one class in 3 of 3 seeds"


def test_rows_that_show_the_same_runs_are_told_alike_versions_together(tmp_path):
    rights = {"x": 150, "y": 141, "z": 144}
    for keys, told in (("xxyy", ", as published and corrected: a and b; c and d."), ("xyzz", ", corrected: c and d.")):
        column = {version: of_runs(tmp_path, rights, keys, version) for version in ("published", "corrected")}
        if keys == "xyzz":
            column["published"] = of_runs(tmp_path, rights, "xyz", "published")
        folded = [note for fold in block_of("spam", column).folds for note in fold.notes]
        assert [note for note in folded if "the same runs" in note] == [
            f"At this scale the same runs stand in several rows{told}"
        ]
    assert identical_notes({"corrected": of_runs(tmp_path, {}, "mn")}) == []  # not run


def test_runs_that_stand_in_several_rows_lead_to_no_conclusion_about_themselves(tmp_path):
    rights = {"x": 150, "y": 110, "z": 190}
    claims = ("60.0", "60.5", "60.5", "61.0")
    column = {
        version: of_runs(tmp_path, rights, keys, version, claims)
        for version, keys in (("published", "xyyz"), ("corrected", "xxyz"))
    }
    assert disagreements(column) == []  # b is worse than a as published, and a itself when corrected
    first, *others = column["corrected"]
    assert [too_small(cell, first, ACCURACY) for cell in others] == [False, True, True]  # b is a itself
    rights |= {"z": 112}
    column = {
        version: of_runs(tmp_path, rights, keys, version) for version, keys in zip(column, ("xyz", "xyy"), strict=True)
    }
    assert disagreements(column) == []  # c before b as published, and b itself when corrected


def test_what_always_the_same_answer_would_score_is_the_last_row(tmp_path):
    column = {}
    for version, ham in (("published", 86), ("corrected", 120)):
        lines = [line(label, f"{version}{label}", version) for label in "ab"]
        for one in lines:
            classifier(tmp_path / one.key, range(100), 200, ham=ham)
        column[version] = cells_of(lines, found_in(tmp_path))
    block = block_of("spam", column)
    for grid, share in ((block.grid, "60.0"), (block.folds[0].grid, "57.0")):
        assert [shown.text for shown in grid.rows[-1]][:2] == ["commonest class", share] and len(grid.rows) == 3
    one = line("a", "ift")
    tutor(tmp_path / one.key, [3.0, 4.0], [2, 2])
    assert len(block_of("ift", {"corrected": cells_of([one], found_in(tmp_path))}).grid.rows) == 1


def sizes(tmp_path, written, ran):
    """Cells of rows with the flags as they are written, by those of what ran."""
    cells = []
    for label, flags, others in zip("abcd", written, ran, strict=False):
        one = line(label, label, flags=flags)
        args = {name: value for name, value in flags_of(f"{CLS} {others}").items() if name != "seed"}
        classifier(tmp_path / one.key, range(150), 200, args=args)
        cells += cells_of([one], found_in(tmp_path))
    return cells


def test_rows_of_sizes_that_are_one_model_here_are_told_with_what_is_between_them(tmp_path):
    written = ["--model gpt2 --batch-size 32", "--model gpt2 --batch-size 4", "--model gpt2-medium --batch-size 8"]
    written = [f"{flags} --lr 5e-5" for flags in [*written, written[-1]]]
    ran = [re.sub("gpt2(-medium)?", "gpt2-nano", flags).replace("5e-5", "2e-4") for flags in written]
    ran[2:] = [flags.replace("2e-4", "3e-4") for flags in ran[2:]]
    (note,) = size_notes("published", sizes(tmp_path / "one", written, ran))
    assert note == (
        "As published: at this scale all sizes are one model; c and d differ from a in batch size (32 / 8) and "
        "learning rate (0.0002 / 0.0003)."
    )
    assert size_notes("published", sizes(tmp_path / "as-written", written, written)) == []
    assert size_notes("published", sizes(tmp_path / "same", written[:2], ran[:2])) == []
    assert size_notes("published", []) == []


def test_the_notes_on_scale_come_from_the_table_files(tmp_path):
    """Sizes that become one and rates that move with the width at the nano scale, and neither at the report's."""
    flags = f"{CLS} --dataset enron --train-examples 125 --max-length 256 --lr %s --model %s --dropout %s"
    rows = [Row("corrected", "spam 125", f"{rate}", "", "", flags % (rate, model, dropout))
            for rate, model, dropout in (("2e-4", "gpt2", 0), ("4e-4", "gpt2-medium", 0.1))]  # fmt: skip
    path = table_file(tmp_path / "tables", "table2_x", rows)
    for scale, factors in (("nano", (768 / 192, 1024 / 192)), ("report", (1, 1))):
        for row, factor in zip(rows, factors, strict=True):
            args = flags_of(row.command) | {"lr": float(row.label) * factor, "data": None}
            args |= {"model": "gpt2-nano"} if scale == "nano" else {}
            classifier(tmp_path / f"runs/{places(path, scale)[row[:3]]}/seed0", range(30), args=args)
        output = tmp_path / scale
        report.main(report.Args(tmp_path / "runs", tmp_path / "no", scale, output, tmp_path / "tables"))
        text = (output / "RESULTS.md").read_text()
        assert text.count("all sizes are one model") == (scale == "nano")
        told = "4e-4 on 125 differs from 2e-4 on 125 in learning rate (0.0008 / 0.002133) and dropout (0.0 / 0.1)."
        assert text.count(told) == (scale == "nano")
