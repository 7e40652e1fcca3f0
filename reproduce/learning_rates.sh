#!/usr/bin/env bash
# The learning rates of the corrected rows: a small grid for each task and method. At the end it prints the rates with
# the lowest validation loss, as lines for settings.sh.
#
#     SCALE=nano bash reproduce/learning_rates.sh
export SEEDS=${SEEDS:-0}
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for rate in 1e-4 2e-4 4e-4 8e-4 1.6e-3 3.2e-3; do
  corrected "spam, lora"         $rate  "${spam_lora_medium[@]}"       --lora-rank 16 --lr $rate
  corrected "sentiment, lora"    $rate  "${sentiment_lora_medium[@]}"  --lora-rank 16 --lr $rate
  corrected "nle, lora"          $rate  "${nle_lora_medium[@]}"        --lora-rank 16 --lr $rate
  corrected "ift, lora"          $rate  "${ift_lora_medium[@]}"        --lora-rank 16 --lr $rate
done

for rate in 2.5e-5 5e-5 1e-4 2e-4 4e-4; do
  corrected "spam, full"         $rate  "${spam_full_medium[@]}"       --lr $rate
  corrected "sentiment, full"    $rate  "${sentiment_full_medium[@]}"  --lr $rate
  corrected "nle, full"          $rate  "${nle_full_medium[@]}"        --lr $rate
  corrected "ift, full"          $rate  "${ift_full_medium[@]}"        --lr $rate
done

# The norm of a step of SGD is at most its rate, that of Adam's about the rate times the root of the parameters.
for rate in 1.6e-2 6.4e-2 2.56e-1 1.024; do
  corrected "ift, sgd"           $rate  "${ift_sgd_medium[@]}"         --lora-rank 16 --lr $rate
done
for rate in 4e-3 1.6e-2 6.4e-2 2.56e-1; do
  corrected "ift, sgd-momentum"  $rate  "${ift_momentum_medium[@]}"    --lora-rank 16 --lr $rate
done
