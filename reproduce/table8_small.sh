#!/usr/bin/env bash
# Table 8: full fine-tuning and LoRA, GPT-2 small on reviews (report, appendix 5.6.2).
#
#     bash reproduce/table8_small.sh
#
# As published, LoRA had two epochs, a schedule and clipping, full fine-tuning one epoch at a constant rate.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label column      report  record  --  script        what the cell alone has
version published

common "${published_sentiment[@]}" --model gpt2 --batch-size 32
cell "full" sentiment   0.905  0.905   --  finetune_cls  "${constant[@]}" "${full[@]}" --epochs 1
cell "LoRA" sentiment   0.904  0.90467 --  finetune_cls  "${scheduled[@]}" "${paper_lora_sentiment[@]}" --lora-rank 16 --lora-alpha 16 --epochs 2 --warmup-steps 1
cell "LoRA" parameters  2e6    2668066 --  finetune_cls  "${scheduled[@]}" "${paper_lora_sentiment[@]}" --lora-rank 16 --lora-alpha 16 --epochs 2 --warmup-steps 1

version corrected

common "${corrected_sentiment[@]}" --model gpt2
cell "full" sentiment   =      =       --  finetune_cls  "${full[@]}"
cell "LoRA" sentiment   =      =       --  finetune_cls  "${lora[@]}" --lora-rank 16

finish
