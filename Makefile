# make demo: fine-tune the bundled model on real mail. make quick: style and the fast tests, for every commit.
# make test: all tests. make check: style, types and shell files. make format: apply the style.
# make gpu-check: in eight minutes, whether an NVIDIA GPU computes what the CPU does, and how fast it is.
# make clean: delete .venv and caches, never runs/
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.PHONY: demo quick test check gpu-check format clean
.DELETE_ON_ERROR:

$(VENV)/installed: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,playground]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/accelerate launch --config_file accelerate_configs/cpu.yaml scripts/finetune_cls.py \
	  --dataset spamassassin --model gpt2-nano --max-length 256 --epochs 1 --eval-every 97 --output-dir runs/demo --overwrite

quick: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --quick

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy gpt2_scratch lora tasks training evidence judge page workers studies scripts benchmarks reproduce
	$(BIN)/shellcheck -x .ci/run reproduce/*.sh reproduce/*.sbatch

gpu-check: $(VENV)/installed-test
	$(BIN)/python benchmarks/gpu_check.py

format: $(VENV)/installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache
