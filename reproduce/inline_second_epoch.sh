#!/usr/bin/env bash
# In the text: what a second epoch brings with LoRA, GPT-2 medium on reviews (report, section 3.2: "4% accuracy").
#
#     bash reproduce/inline_second_epoch.sh
#
# As published, the batch size doubled with the epochs.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label       column     report  record  --  script        what the cell alone has
version published

common "${published_sentiment[@]}" "${scheduled[@]}" "${paper_lora_sentiment[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --last-blocks 18
cell "one epoch"   sentiment  -       88.2    --  finetune_cls  --batch-size 16 --epochs 1
cell "two epochs"  sentiment  -       91.633  --  finetune_cls  --batch-size 32 --epochs 2

version corrected

common "${corrected_sentiment[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16 --last-blocks 18
cell "one epoch"   sentiment  =       =       --  finetune_cls  --epochs 1
cell "two epochs"  sentiment  =       =       --  finetune_cls  --epochs 2

finish
