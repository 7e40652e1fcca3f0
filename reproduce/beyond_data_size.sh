#!/usr/bin/env bash
# Beyond the report (its section 4): accuracy and perplexity from 125 to all examples, full fine-tuning and LoRA.
#
#     bash reproduce/beyond_data_size.sh
#
# A column is a number of training examples, so that LoRA is compared with full fine-tuning on the same ones. A million
# stands for all there are. Epochs are the recipe's: fewer examples are fewer updates.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version corrected

for size in 125 250 500 1000 2000 4000 8000 1000000; do
  common "${corrected_spam[@]}" --model gpt2-medium
  cell "full"          "spam $size"      - -  --  finetune_cls  "${full[@]}" --train-examples $size
  cell "LoRA, rank 16" "spam $size"      - -  --  finetune_cls  "${lora[@]}" --train-examples $size --lora-rank 16

  common "${corrected_sentiment[@]}" --model gpt2-medium
  cell "full"          "sentiment $size" - -  --  finetune_cls  "${full[@]}" --train-examples $size
  cell "LoRA, rank 16" "sentiment $size" - -  --  finetune_cls  "${lora[@]}" --train-examples $size --lora-rank 16

  common "${corrected_ift[@]}" --model gpt2-medium
  cell "full"          "ift $size"       - -  --  finetune_ift  "${full[@]}" --train-examples $size
  cell "LoRA, rank 16" "ift $size"       - -  --  finetune_ift  "${lora[@]}" --train-examples $size --lora-rank 16
done

finish
