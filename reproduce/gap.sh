#!/usr/bin/env bash
# Where does the gap between LoRA and full fine-tuning come from? One study of each task with gpt2-nano (docs/gap.md).
#
#     bash reproduce/gap.sh mail                  # or reviews, or instructions
#     bash reproduce/gap.sh mail --complete       # further flags of scripts/study.py
#
# It goes on from the packed runs, and packs all that are finished when it ends or is stopped, without their weights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}

task=${1:?which task: mail, reviews or instructions}
arms=(--every-seed --arms full full-blocks lora lora-embedding)
# Updates: twice as many lowered the loss of a run of full fine-tuning by 0.004 (mail), or raised it by 0.046 (reviews).
case $task in
  mail) data=(--dataset enron --train-examples 500 --val-examples 300 --test-examples 2000 --updates 200 "${arms[@]}" head) ;;
  reviews) data=(--dataset imdb --train-examples 1000 --val-examples 300 --test-examples 2000 --updates 250 "${arms[@]}" head) ;;
  instructions) data=(--dataset alpaca --train-examples 1000 --val-examples 150 --test-share 0.2 "${arms[@]}" lora-lm-head) ;;
  *) echo "error: $task: must be mail, reviews or instructions" >&2 && exit 2 ;;
esac

pack=reproduce/results/gap-$task.tar.xz
mkdir -p runs/gap
if [[ -f $pack && ! -d runs/gap/$task ]]; then
  rm -rf runs/gap/.new && mkdir runs/gap/.new
  tar -xJf "$pack" -C runs/gap/.new && mv "runs/gap/.new/$task" runs/gap/
fi
pack_runs() {
  [[ -f runs/gap/$task/study.json ]] || return 0
  tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --exclude=model --exclude=adapter --exclude=checkpoint \
    --exclude=tensorboard --exclude='*.png' --exclude='*.log' --exclude=.lock -cJf "$pack.new" -C runs/gap "$task"
  mv "$pack.new" "$pack"
}
trap pack_runs EXIT
"$PYTHON" scripts/study.py "${data[@]}" --max-length 128 --model gpt2-nano --ranks 16 1 4 64 --output-dir "runs/gap/$task" "${@:2}"
