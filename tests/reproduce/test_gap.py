"""docs/gap.md says what the packed studies answered."""

import re
import tarfile

import pytest
from helpers import ROOT


def arm_of(row):
    """The name that the answer has for an arm of the page: LoRA r16 and the embedding is lora-embedding r16."""
    found = re.fullmatch(r"LoRA (r\d+)( and the embedding)?", row)
    return (
        f"lora{'-embedding' * bool(found[2])} {found[1]}"
        if found
        else {"full, blocks alone": "full-blocks"}.get(row, row)
    )


def rows_of(task):
    """The rows of a task's table, as lists of cells."""
    page = (ROOT / "docs" / "gap.md").read_text()
    table = re.search(rf"^## {task.title()}$.*?\n(\| arm .*?)\n\n", page, re.MULTILINE | re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


@pytest.mark.parametrize("task", ["mail", "reviews"])
def test_every_number_of_a_table_is_in_the_answer_of_its_study(task):
    with tarfile.open(ROOT / "reproduce" / "results" / f"gap-{task}.tar.xz") as pack:
        answer = pack.extractfile(f"{task}/answer.md").read().decode()
    compared = 0
    for arm, rate, _, accuracy, difference, forgotten in rows_of(task):
        if "[" in difference:
            compared += 1
            name = "TF-IDF + logistic regression" if arm.startswith("TF-IDF") else f"{arm_of(arm)} at lr {rate}"
            assert f"{name} ({difference.replace(' [', ' points [')})" in answer, arm
        if "[" in accuracy:
            assert accuracy in answer, arm
        if "[" in forgotten and task == "reviews":  # the page of mail has one digit
            assert f"{arm_of(arm)} {forgotten.removeprefix('+')}" in answer, arm
    assert compared == 8
    assert f"{next(cell for cell in rows_of(task) if 'commonest' in cell[0])[3]}" in answer
