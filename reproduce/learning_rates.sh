#!/usr/bin/env bash
# The learning rates of the corrected rows: a small grid for each task and method; prints the one with the lowest
# validation loss, as a line for the table in lib.sh.
#
#     SCALE=nano bash reproduce/learning_rates.sh
: "${SEEDS:=0}"
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version corrected

for rate in 1e-4 2e-4 4e-4 8e-4 1.6e-3 3.2e-3; do
  common "${lora[@]}" --lora-rank 16 --model gpt2-medium "${corrected_spam[@]}"
  cell $rate "spam lora" - -         --  finetune_cls  --lr $rate
  common "${lora[@]}" --lora-rank 16 --model gpt2-medium "${corrected_sentiment[@]}"
  cell $rate "sentiment lora" - -    --  finetune_cls  --lr $rate
  common "${lora[@]}" --lora-rank 16 --model gpt2-medium "${corrected_nle[@]}"
  cell $rate "nle lora" - -          --  finetune_cls  --lr $rate
  common "${lora[@]}" --lora-rank 16 --model gpt2-medium "${corrected_ift[@]}"
  cell $rate "ift lora" - -          --  finetune_ift  --lr $rate
done

for rate in 2.5e-5 5e-5 1e-4 2e-4 4e-4; do
  common "${full[@]}" --model gpt2-medium "${corrected_spam[@]}"
  cell $rate "spam full" - -         --  finetune_cls  --lr $rate
  common "${full[@]}" --model gpt2-medium "${corrected_sentiment[@]}"
  cell $rate "sentiment full" - -    --  finetune_cls  --lr $rate
  common "${full[@]}" --model gpt2-medium "${corrected_nle[@]}"
  cell $rate "nle full" - -          --  finetune_cls  --lr $rate
  common "${full[@]}" --model gpt2-medium "${corrected_ift[@]}"
  cell $rate "ift full" - -          --  finetune_ift  --lr $rate
done

# The norm of a step of SGD is at most its rate, that of Adam's about the rate times the root of the parameters.
common "${lora[@]}" --lora-rank 16 --model gpt2-medium "${corrected_ift[@]}"
for rate in 1.6e-2 6.4e-2 2.56e-1 1.024; do
  cell $rate "ift sgd" - -           --  finetune_ift  --lr $rate --optimizer sgd
done
for rate in 4e-3 1.6e-2 6.4e-2 2.56e-1; do
  cell $rate "ift sgd-momentum" - -  --  finetune_ift  --lr $rate --optimizer sgd-momentum --momentum 0.9
done

finish
if [[ -z $LIST && -z $DRY_RUN ]]; then list_rows | "$PYTHON" reproduce/choose_rates.py; fi
