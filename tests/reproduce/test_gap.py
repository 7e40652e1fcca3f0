"""docs/gap.md and README.md say what the packed studies answered."""

import html
import re
import tarfile

import pytest
from helpers import ROOT

NAMES = {
    "full, blocks alone": "full-blocks",
    "LoRA r16 and the embedding": "lora-embedding r16",
    "LoRA r16 and the LM head": "lora-lm-head r16",
    "TF-IDF and logistic regression": "TF-IDF + logistic regression",
    "the commonest class": "commonest class",
}


def name_of(row):
    """The name that the answer has for an arm of the page: LoRA r16 is lora r16."""
    return NAMES.get(row, row.replace("LoRA", "lora"))


def rows_of(task):
    """The rows of a task's table, as lists of cells."""
    page = (ROOT / "docs" / "gap.md").read_text()
    table = re.search(rf"^## {task.title()}$.*?\n(\| arm .*?)\n\n", page, re.MULTILINE | re.DOTALL)[1]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def packed(task):
    """The answer of a study, and the rows of the first table of its page by arm."""
    with tarfile.open(ROOT / "reproduce" / "results" / f"gap-{task}.tar.xz") as pack:
        answer, page = (pack.extractfile(f"{task}/{name}").read().decode() for name in ("answer.md", "study.html"))
    table = re.search("<table.*?</table>", page, re.DOTALL)[0]
    rows = [re.findall(r"<td.*?>(.*?)</td>", row, re.DOTALL) for row in re.findall("<tr.*?</tr>", table, re.DOTALL)]
    texts = [[html.unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in row] for row in rows]
    return answer, {row[0].removesuffix(", stopped"): row for row in texts if row}


@pytest.mark.parametrize("task", ["mail", "reviews", "instructions"])
def test_every_number_of_a_table_is_in_the_answer_of_its_study(task):
    answer, page = packed(task)
    rows, compared = rows_of(task), 0
    for arm, rate, seeds, score, difference, forgotten in rows:
        own = page[name_of(arm)]
        assert rate in own[1] and (not seeds or own[2] == seeds), arm
        assert any(cell.startswith(score.replace("%", "")) for cell in own[3:]), arm
        if difference:
            compared += 1
            name = f"{name_of(arm)} at lr {rate}" if rate else name_of(arm)
            points = difference if "×" in difference else difference.replace(" [", " points [")
            assert f"{name} ({points})" in answer and difference in own, arm
        if "[" in forgotten:
            assert f"{name_of(arm)} {forgotten.removeprefix('+')}" in answer and forgotten.removeprefix("+") in own, arm
    assert {name_of(row[0]) for row in rows} == {*page} and compared == len(page) - 1 - (task != "instructions")


def test_what_is_told_apart_on_mail_and_reviews_is_what_page_and_readme_say():
    readme = " ".join((ROOT / "README.md").read_text().split())
    answer, page = packed("mail")
    assert "Every other arm is told apart from it." in answer and "(5 seeds, 2,000 examples)" in answer
    ranks = [float(page[f"lora r{rank}"][5].split(" ")[0].replace("\u2212", "")) for rank in (1, 4, 16, 64)]
    full = page["full"][5].split(" ")[0].removeprefix("\u2212")
    ahead = f"by {min(ranks)} to {max(ranks)} points, and than full fine-tuning, by {full}"
    assert f"better than LoRA of any rank alone, {ahead}" in readme
    methods = (ROOT / "docs" / "methods.md").read_text()
    for arm, words in (("lora r16", "better than without"), ("full", "than full fine-tuning")):
        value, low, high = re.findall(r"[\d.]+", page[arm][5])
        assert re.search(rf"{words} by {value}( points)? \[{high}, {low}\]", methods), arm
    assert "39.9 MB on disk" in answer and "40 MB on disk" in methods
    answer, _ = packed("reviews")
    assert "four of five such studies would find 5.0 points" in answer
    assert re.findall(r"Worse than it is (.*?) at", answer) == ["head"], "methods alone are not told apart"
    assert "four of five such studies would find 5 points" in readme
