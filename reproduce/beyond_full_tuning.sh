#!/usr/bin/env bash
# Beyond the report (its section 4): hyper-parameters of full fine-tuning, with as many runs for LoRA; reviews.
#
#     bash reproduce/beyond_full_tuning.sh
#
# One setting at a time differs from the recipe, whose row is the first of each method. The best row of each method is
# the one with the lowest validation loss; the two are compared on the test examples.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

one() { # METHOD COLUMN VALUE COMMAND...
  corrected "$2 $1" "$1 $3" "${@:4}"
  corrected best "$1: $2 $3" "${@:4}"
}
full() { one full "$1" "$2" "${sentiment_full_medium[@]}" "${@:3}"; }
lora() { one LoRA "$1" "$2" "${sentiment_lora_medium[@]}" --lora-rank 16 "${@:3}"; }

for rate in 1e-4 2.5e-5 5e-5 2e-4; do full lr $rate --lr $rate; done
for rate in 2e-4 1e-4 4e-4 8e-4; do lora lr $rate --lr $rate; done
for method in full lora; do
  for epochs in 2 1 4; do $method epochs $epochs --epochs $epochs; done
  for decay in 0.01 0 0.1; do $method weight-decay $decay --weight-decay $decay; done
  for size in 8 4 32; do $method batch $size --batch-size $size; done
done
