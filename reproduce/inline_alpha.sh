#!/usr/bin/env bash
# In the text: alpha of half the rank, the rank and twice the rank, GPT-2 medium, instructions (report, section 3.2.2).
#
#     bash reproduce/inline_alpha.sh
#
# The report gives no numbers; alpha = r/2 has no record. As published, alpha itself is the scale.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label         column  report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${paper_lora_ift[@]}" --model gpt2-medium --lora-rank 16 --batch-size 2 --epochs 1
cell "alpha = r"   ift     -       28.65   --  finetune_ift  --lora-alpha 16
cell "alpha = r/2" ift     -       -       --  finetune_ift  --lora-alpha 8
cell "alpha = 2r"  ift     -       21.22   --  finetune_ift  --lora-alpha 32

version corrected

common "${corrected_ift[@]}" "${lora[@]}" --model gpt2-medium --lora-rank 16
cell "alpha = r"   ift     =       =       --  finetune_ift  --lora-alpha 16
cell "alpha = r/2" ift     =       =       --  finetune_ift  --lora-alpha 8
cell "alpha = 2r"  ift     =       =       --  finetune_ift  --lora-alpha 32

finish
