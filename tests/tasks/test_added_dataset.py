"""Adding a dataset takes one file in tasks/: it is then a --dataset of the script for its kind."""

import os
import shutil

from conftest import ROOT, results_of, run_script, write_rows

WEATHER = '''
"""Weather or not, by the first word."""

from tasks import Classification, Columns

COLUMNS = (Columns(("report",), "is_weather"),)
TASK = Classification("weather", columns=COLUMNS, file="weather.jsonl", labels=("no", "yes"))
'''


def test_an_added_file_is_a_dataset_of_its_script(tiny_model, tmp_path):
    shutil.copytree(ROOT / "tasks", tmp_path / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tasks" / "weather.py").write_text(WEATHER)
    rows = [{"report": f"{('Rain', 'Lunch')[i % 2]} at {i}", "is_weather": ("yes", "no")[i % 2]} for i in range(60)]
    write_rows(tmp_path / "weather.jsonl", rows)
    env = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "DATA_DIR": str(tmp_path)}
    flags = ["--dataset", "weather", "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    done = run_script("finetune_cls", *flags, env=env)
    assert done.returncode == 0, done.stderr
    assert results_of(tmp_path / "run")["data"]["labels"] == ["no", "yes"]
    unknown = run_script("finetune_cls", "--dataset", "whether", env=env)
    assert unknown.returncode == 2 and "(weather?)" in unknown.stderr
