"""The real data sets, where DATA_DIR has them: read, cleaned and split as on the user's machine."""

import pytest
from conftest import real_data

from tasks import Classification, Instructions, find
from training.data.sources import locate_rows, split_rows
from training.flags.common import DataArgs
from training.flags.task import TextArgs

# Rows of the files as they were handed over, whatever is left out of them.
KNOWN = [
    ("enron", Classification, "enron_spam_data.parquet", 22_489),
    ("imdb", Classification, "imdb_train.parquet", 25_000),
    ("sick", Classification, "sick_nli.csv", 7_000),
    ("alpaca", Instructions, "alpaca_data.json", 2_745),
]


@pytest.mark.parametrize(("name", "kind", "file", "rows"), KNOWN, ids=[known[0] for known in KNOWN])
def test_a_real_data_set_is_read_whole_and_split_without_overlap(name, kind, file, rows):
    path = real_data(file)
    task = find(name, kind)
    source = locate_rows(task, path)
    splits = split_rows(task, source, DataArgs(dataset=name))
    parts = splits.named()
    skipped = splits.skipped
    assert source.origin == str(path)
    assert sum(map(len, parts.values())) + skipped.empty + skipped.duplicate + skipped.contradictory == rows
    texts = [" ".join(" ".join(e.identity).casefold().split()) for part in parts.values() for e in part]
    assert len(set(texts)) == len(texts)
    assert all(0.09 < len(parts[held_out]) / len(texts) < 0.11 for held_out in ("validation", "test"))
    if kind is Classification:
        assert len(task.classes([e for part in parts.values() for e in part])) == (3 if name == "sick" else 2)


@pytest.mark.parametrize(("name", "size"), [("enron", 2_000), ("imdb", 15_000)])
def test_the_reports_subset_can_be_drawn_from_the_real_file(name, size):
    task = find(name, Classification)
    source = locate_rows(task, real_data(task.file))
    splits = split_rows(task, source, DataArgs(dataset=name, subset="report"))
    assert sum(map(len, splits.named().values())) == size


def test_empty_and_duplicate_messages_of_the_enron_mails_are_found():
    task = TextArgs(text_column=("Message",)).task("enron", None)
    source = locate_rows(task, real_data("enron_spam_data.parquet"))
    skipped = split_rows(task, source, DataArgs(dataset="enron")).skipped
    assert skipped.duplicate > 1_000
    assert skipped.empty == 314
