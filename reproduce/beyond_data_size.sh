#!/usr/bin/env bash
# Beyond the report (its section 4): accuracy and perplexity from 125 to all examples, full fine-tuning and LoRA.
#
#     bash reproduce/beyond_data_size.sh
#
# Each column has one number of training examples, so that LoRA and full fine-tuning are compared on the same examples.
# A million means all of them. Epochs are the recipe's, so fewer examples mean fewer updates.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for size in 125 250 500 1000 2000 4000 8000 1000000; do
  corrected "spam $size"       "full"           "${spam_full_medium[@]}" --train-examples $size
  corrected "spam $size"       "LoRA of rank 16"  "${spam_lora_medium[@]}" --train-examples $size --lora-rank 16

  corrected "sentiment $size"  "full"           "${sentiment_full_medium[@]}" --train-examples $size
  corrected "sentiment $size"  "LoRA of rank 16"  "${sentiment_lora_medium[@]}" --train-examples $size --lora-rank 16

  corrected "ift $size"        "full"           "${ift_full_medium[@]}" --train-examples $size
  corrected "ift $size"        "LoRA of rank 16"  "${ift_lora_medium[@]}" --train-examples $size --lora-rank 16
done
