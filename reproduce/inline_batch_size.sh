#!/usr/bin/env bash
# In the text: batch sizes of LoRA on GPT-2 medium (report, section 3.2.1).
#
#     bash reproduce/inline_batch_size.sh
#
# Of spam the report says that larger batches were more accurate; no run with another batch than 8 is recorded.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label     column  report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --epochs 1
cell "batch 2"  ift     28.7    28.65   --  finetune_ift  --batch-size 2
cell "batch 4"  ift     32.4    32.46   --  finetune_ift  --batch-size 4

common "${published_spam[@]}" "${constant[@]}" "${paper_lora_spam[@]}" --model gpt2-medium --lora-rank 16 --lora-alpha 16 --epochs 2
cell "batch 4"  spam    -       -       --  finetune_cls  --batch-size 4
cell "batch 8"  spam    -       93.5    --  finetune_cls  --batch-size 8
cell "batch 32" spam    -       -       --  finetune_cls  --batch-size 32

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16
cell "batch 2"  ift     =       =       --  finetune_ift  --batch-size 2
cell "batch 4"  ift     =       =       --  finetune_ift  --batch-size 4
cell "batch 8"  ift     -       -       --  finetune_ift  --batch-size 8
cell "batch 32" ift     -       -       --  finetune_ift  --batch-size 32

common "${corrected_spam[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16
cell "batch 4"  spam    =       =       --  finetune_cls  --batch-size 4
cell "batch 8"  spam    =       =       --  finetune_cls  --batch-size 8
cell "batch 32" spam    =       =       --  finetune_cls  --batch-size 32

finish
