#!/usr/bin/env bash
# Table 6: the rank of LoRA on GPT-2 large, instructions (report, appendix 5.4.3).
#
#     bash reproduce/table6_rank_large.sh
#
# As published, alpha followed the rank and the update was scaled by alpha itself. The report says two epochs on a T4; the
# authors' records say one epoch on an L4.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label     column      report    record   --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-large --batch-size 2 --epochs 1 --warmup-ratio 0.01
cell "rank 8"  ift         46.37     46.37    --  finetune_ift  --lora-rank 8  --lora-alpha 8
cell "rank 16" ift         49.98     49.98    --  finetune_ift  --lora-rank 16 --lora-alpha 16
cell "rank 32" ift         44.96     44.96    --  finetune_ift  --lora-rank 32 --lora-alpha 32
cell "rank 8"  parameters  -         7047816  --  finetune_ift  --lora-rank 8  --lora-alpha 8
cell "rank 16" parameters  14e6      14095632 --  finetune_ift  --lora-rank 16 --lora-alpha 16
cell "rank 32" parameters  -         28191264 --  finetune_ift  --lora-rank 32 --lora-alpha 32

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --model gpt2-large
cell "rank 8"  ift         =         =        --  finetune_ift  --lora-rank 8
cell "rank 16" ift         =         =        --  finetune_ift  --lora-rank 16
cell "rank 32" ift         =         =        --  finetune_ift  --lora-rank 32

finish
