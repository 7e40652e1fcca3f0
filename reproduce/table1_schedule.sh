#!/usr/bin/env bash
# Table 1: learning-rate schedule and clipping, full fine-tuning on instructions (report, section 3.1.1).
#
#     bash reproduce/table1_schedule.sh
#
# As published, a constant rate also meant no warmup and no clipping; GPT-2 medium with a constant rate (33.39) did
# better than with the schedule and was left out of the report.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label                      column  report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${full[@]}" --batch-size 2 --epochs 1
cell "large, constant rate"       ift   33.06   33.06   --  finetune_ift  --model gpt2-large  "${constant[@]}"
cell "large, schedule"            ift   41.91   41.91   --  finetune_ift  --model gpt2-large  "${scheduled[@]}" --max-grad-norm None
cell "large, schedule, clipping"  ift   51.80   51.80   --  finetune_ift  --model gpt2-large  "${scheduled[@]}"
cell "medium, schedule, clipping" ift   32.55   32.55   --  finetune_ift  --model gpt2-medium "${scheduled[@]}"
cell "medium, constant rate"      ift   -       33.39   --  finetune_ift  --model gpt2-medium "${constant[@]}"

version corrected

common "${corrected_ift[@]}" "${full[@]}"
cell "large, constant rate"       ift   =       =       --  finetune_ift  --model gpt2-large  --schedule constant --warmup-ratio 0 --max-grad-norm None
cell "large, schedule"            ift   =       =       --  finetune_ift  --model gpt2-large  --max-grad-norm None
cell "large, schedule, clipping"  ift   =       =       --  finetune_ift  --model gpt2-large
cell "medium, schedule, clipping" ift   =       =       --  finetune_ift  --model gpt2-medium
cell "medium, constant rate"      ift   =       =       --  finetune_ift  --model gpt2-medium --schedule constant --warmup-ratio 0 --max-grad-norm None

finish
