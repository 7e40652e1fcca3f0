#!/usr/bin/env bash
# Figure 4: warmup of 1% and 20%, LoRA on GPT-2 large, instructions (report, section 3.2.4).
#
#     bash reproduce/figure4_warmup.sh
#
# As published, the run with 20% has two epochs and the one with 1% has one, drawn on the same axis.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label         column    report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-large --lora-rank 16 --lora-alpha 16 --batch-size 2
cell "warmup 20%"  val-loss  -       1.427   --  finetune_ift  --warmup-ratio 0.2  --epochs 2
cell "warmup 1%"   val-loss  -       1.394   --  finetune_ift  --warmup-ratio 0.01 --epochs 1

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --model gpt2-large --lora-rank 16
cell "warmup 20%"  val-loss  =       =       --  finetune_ift  --warmup-ratio 0.2
cell "warmup 1%"   val-loss  =       =       --  finetune_ift  --warmup-ratio 0.01

finish
