"""The results that are kept: the page is in order, and README and docs/ say what it says."""

import csv
import re

import pytest
from helpers import ROOT

REPRODUCE = ROOT / "reproduce"
README, METHODS = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/methods.md"))
RESULTS = (REPRODUCE / "RESULTS.md").read_text(encoding="utf-8")
HEADLINE = {"spam": "Enron mail", "sentiment": "IMDB", "nle": "SICK", "ift": "Alpaca"}
EVIDENCE = r" \(gpt2-nano, (\[[\w ]+\])(?:, (\[[\w ]+\]))*\)\.$"  # what every advice ends with


def headline(task):
    """LoRA's row and that of full fine-tuning in Table 3, corrected, as exported."""
    with (REPRODUCE / "tables.csv").open(encoding="utf-8", newline="") as file:
        cells = [*csv.DictReader(file)]
    wanted = ("table3_methods", task, "corrected")
    rows = {cell["label"]: cell for cell in cells if (cell["table"], cell["column"], cell["version"]) == wanted}
    return rows["LoRA (report: large)"], rows["full (report: large)"]


def headline_row(task):
    """What README must say of a task."""
    lora, full = headline(task)
    digits, sign = (1, "×") if task == "ift" else (3, "")

    def spelled(row, name, low, high, pattern):
        value, *ends = (format(float(row[key]), pattern).replace("-", "−") for key in (name, low, high))
        return f"{value} [{', '.join(ends)}]"

    scores = [spelled(row, "value", "low", "high", f".{digits}f") for row in (lora, full)]
    pattern = ".2f" if sign else "+.3f"
    difference = sign + spelled(lora, "difference", "difference_low", "difference_high", pattern)
    lost = [spelled(row, "forgetting", "forgetting_low", "forgetting_high", "+.2f") for row in (lora, full)]
    return [*scores, difference, *lost]


@pytest.mark.parametrize("task", HEADLINE)
def test_the_first_table_of_readme_is_what_was_measured(task):
    (line,) = [line for line in README.splitlines() if line.startswith(f"| {HEADLINE[task]} (")]
    assert [word.strip() for word in line.strip("|").split("|")][1:] == headline_row(task)


def test_readme_says_of_its_first_table_what_is_told_apart():
    rows, said = {task: headline(task) for task in HEADLINE}, " ".join(README.split())
    told = {task for task, (lora, _) in rows.items() if float(lora["p_holm"]) < 0.05}
    lower = {task for task, (lora, full) in rows.items() if float(lora["value"]) < float(full["value"])}
    assert told == {"spam", "ift"} and "spam" in lower and "ift" not in lower
    assert "LoRA is worse on mail and on instructions; on reviews and on entailment, where" in said
    reviews, pairs = (float(rows[task][0]["detectable"]) for task in ("sentiment", "nle"))
    assert f"where four of five such studies would find {100 * reviews:.1f} and {100 * pairs:.1f} points" in said
    assert all(float(lora["forgetting"]) < float(full["forgetting"]) for lora, full in rows.values())
    apart = {t for t, (lora, full) in rows.items() if float(lora["forgetting_high"]) < float(full["forgetting_low"])}
    assert apart == {"spam", "sentiment", "ift"} and "except on entailment, the intervals do not overlap" in said


def test_links_to_results_lead_to_a_heading():
    anchors = set(re.findall(r'^<a id="(\w+)"></a>\n\n## ', RESULTS, flags=re.MULTILINE))
    links = re.findall(r"reproduce/RESULTS\.md#([\w-]+)", README + METHODS) + re.findall(r"\(#([\w-]+)\)", RESULTS)
    assert len(links) >= 15 and set(links) <= anchors


def test_ten_findings_open_the_page_each_with_its_table_and_an_interval():
    (text,) = re.findall(r"^## Ten findings$(.*?)^## ", RESULTS, flags=re.MULTILINE | re.DOTALL)
    findings = re.split(r"^- ", text, flags=re.MULTILINE)[1:]
    assert len(findings) == 10 and "gpt2-nano" in text.split("- **")[0]
    for finding in findings:
        assert re.search(r"\[[^\]]*\d, [^\]]*\d\]", finding) and re.search(r"\]\(#\w+\)$", finding.strip()), finding


# Of each of the ten findings, whether its differences are told apart, in order.
TOLD_APART = [
    "yes yes",
    "yes no no yes",
    "",
    "",
    "yes no no yes",
    "yes yes yes",
    "yes yes yes yes",
    "no",
    "yes yes",
    "yes yes",
]


def test_the_words_of_the_ten_findings_are_what_the_tables_tell_apart():
    with (REPRODUCE / "tables.csv").open(encoding="utf-8", newline="") as file:
        cells = {(c["table"], c["column"], c["label"], c["version"]): c["p_holm"] for c in csv.DictReader(file)}
    text = (REPRODUCE / "findings.md").read_text(encoding="utf-8").split("## Ten findings")[1].split("\n## ")[0]
    for finding, told in zip(re.split(r"^- ", text, flags=re.MULTILINE)[1:], TOLD_APART, strict=True):
        found = []
        for place, version in re.findall(r"\{([^{}]*) \| (published )?difference\}", finding):
            p = cells[*place.split(" | "), version.strip() or "corrected"]
            found.append("yes" if p and float(p) < 0.05 else "no")
        assert " ".join(found) == told, finding


def test_no_label_has_a_comma_and_what_is_visible_is_short():
    with (REPRODUCE / "tables.csv").open(encoding="utf-8", newline="") as file:
        assert not [cell["label"] for cell in csv.DictReader(file) if "," in cell["label"]]
    visible = re.sub(r"<details>.*?</details>", "", RESULTS, flags=re.DOTALL)
    assert len(visible.split()) < 13_000


def test_every_advice_names_its_model_and_its_table():
    (text,) = re.findall(r"^## What to choose$(.*?)^## ", METHODS, flags=re.MULTILINE | re.DOTALL)
    links = set(re.findall(r"^(\[[\w ]+\]): (?:\.\./reproduce/RESULTS\.md#|gap\.md$)", text, flags=re.MULTILINE))
    advice = re.findall(r"^- (.*)$", text, flags=re.MULTILINE)
    assert len(advice) >= 10
    used = set()
    for sentence in advice:
        assert re.search(EVIDENCE, sentence), sentence
        used |= set(re.findall(r"\[[\w ]+\]", sentence))
    assert used == links
