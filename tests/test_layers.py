"""The architecture, read off the imports: who may know whom, and what may not be imported early."""

import ast
import subprocess
import sys

import pytest
from conftest import LONGEST
from helpers import ROOT

LAYERS = {
    "gpt2_scratch": set(),
    "lora": set(),
    "tasks": set(),
    "evidence": set(),
    "training": {"gpt2_scratch", "lora", "tasks", "evidence"},
    "workers": {"tasks", "training"},
    "judge": {"tasks", "training", "evidence"},
    "page": {"gpt2_scratch", "lora", "tasks", "training", "evidence"},
    "studies": {"gpt2_scratch", "tasks", "training", "evidence", "workers"},
    "scripts": {"gpt2_scratch", "lora", "tasks", "training", "evidence", "judge", "page", "workers", "studies"},
    "benchmarks": {"gpt2_scratch", "lora", "tasks", "training", "evidence", "judge", "workers", "studies"},
    "reproduce": {"gpt2_scratch", "lora", "training", "evidence", "workers", "judge"},
}
FILES = [path for layer in LAYERS for path in sorted((ROOT / layer).rglob("*.py"))]


def imported(path):
    """(top-level package, full name) of every import anywhere in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0], node.module


# Rooms of training/, the lowest first: each imports those before it alone.
ROOMS = ("storage", "flags", "data", "step", "model", "evaluation", "run", "forecast")


def test_every_layer_has_files():
    assert len(FILES) > 40
    assert {path.relative_to(ROOT).parts[0] for path in FILES} >= {
        "gpt2_scratch",
        "lora",
        "tasks",
        "training",
        "scripts",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_its_own_layer_and_those_below_only(path):
    layer = path.relative_to(ROOT).parts[0]
    own = set() if layer == "scripts" else {layer}
    for package, name in imported(path):
        if package in LAYERS:
            assert package in LAYERS[layer] | own, f"{path.name} imports {name}"


def test_a_room_of_training_imports_the_rooms_below_it_only():
    files = sorted((ROOT / "training").glob("*/*.py"))
    assert {path.parent.name for path in files} == set(ROOMS)
    for path in files:
        below = ROOMS[: ROOMS.index(path.parent.name) + 1]
        rooms = {name.split(".")[1] for package, name in imported(path) if package == "training"}
        assert rooms <= {*below}, f"{path.relative_to(ROOT)} imports {rooms - {*below}}"


@pytest.mark.parametrize(
    ("layer", "unknown"),
    [("tasks", ("torch", "tiktoken", "transformers")), ("lora", ("tiktoken",)), ("judge", ("torch", "gpt2_scratch"))],
)
def test_a_layer_does_not_know_what_is_not_its_business(layer, unknown):
    for path in (ROOT / layer).rglob("*.py"):
        assert not {package for package, _ in imported(path)} & set(unknown), path


def test_scripts_do_not_import_scripts_and_no_file_edits_the_path():
    scripts = {path.stem for path in (ROOT / "scripts").glob("*.py")}
    for path in FILES:
        assert "sys.path" not in path.read_text(), path
        if path.parent.name == "scripts":
            assert not {package for package, _ in imported(path)} & scripts, path


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift", "finetune_dpo", "finetune_kto", "pretrain"])
def test_a_training_script_is_its_task_and_its_loop(script):
    """At most 90 lines of `main` and `train`, one import once the flags are checked, and the loop stands in it."""
    tree = ast.parse((ROOT / "scripts" / f"{script}.py").read_text())
    found = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    main, train = found["main"], found["train"]
    assert sum(node.end_lineno - node.lineno + 1 for node in (main, train)) <= 90
    (names,) = [node for node in ast.walk(train) if isinstance(node, ast.ImportFrom)]
    assert names.module == "training.loop"
    (loop,) = [node for node in train.body if isinstance(node, ast.While)]
    called = {node.func.id for node in ast.walk(loop) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert {"accumulate", "apply_update"} <= called


def test_the_files_that_quick_leaves_out_exist():
    assert {*LONGEST} <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def test_no_file_imports_at_its_top_what_windows_lacks():
    lacking = {"fcntl", "grp", "pwd", "resource", "syslog", "termios"}
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not lacking & {*names}, path


def test_no_file_is_named_after_a_dependency():
    dependencies = {"evaluate", "datasets", "accelerate", "transformers", "tokenizers", "torch", "tqdm", "tyro", "peft"}
    assert not {path.stem for path in FILES} & dependencies


def test_statistics_needs_numpy_and_scipy_only():
    known = {package for package, _ in imported(ROOT / "evidence" / "intervals.py")}
    assert known <= {"collections", "math", "typing", "numpy", "scipy"}


METRICS_AND_PICTURES = {"evaluate", "datasets", "sklearn", "transformers", "pandas", "pyarrow", "matplotlib"}
HEAVY = METRICS_AND_PICTURES | {"torch", "accelerate", "scipy.stats"}


def loaded(code: str, *words: object, ending: int = 0) -> set[str]:
    """The modules that a new process has loaded when it gets to `seen()` in `code`."""
    code = f"import os, runpy, sys\ndef seen(): print('seen', *sys.modules, file=sys.__stdout__, flush=True)\n{code}"
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == ending, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("seen ")]
    return {*line.split()}


def test_help_and_a_refusal_of_any_script_load_no_heavy_library():
    """They would otherwise take seconds, and a refusal without a network more than ten."""
    code = f"""
for script in sys.argv[1:]:
    for words, status in ((["--help"], 0), (["--no-such-flag"], 2)):
        sys.argv, sys.stdout = [script, *words], open(os.devnull, "w")
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ending:
            assert (ending.code or 0) == status, (script, ending.code)
        else:
            assert status == 0, script
    assert not {HEAVY} & {{*sys.modules}}, script
seen()
"""
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert len(scripts) > 5 and "tyro" in loaded(code, *scripts)


def test_the_first_update_comes_before_the_libraries_of_metrics_and_pictures(tiny_model, mail_file, tmp_path):
    code = """
from training.run.run import Run
sys.argv = sys.argv[1:]
def stepped(*_):
    seen()
    os._exit(0)
Run.stepped = stepped
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 1, "--output-dir", tmp_path / "run"]
    modules = loaded(code, ROOT / "scripts" / "finetune_cls.py", *flags, "--forgetting-tokens", 20)
    assert "torch" in modules
    assert not modules & {*METRICS_AND_PICTURES, "scipy.special"}
