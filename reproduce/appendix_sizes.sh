#!/usr/bin/env bash
# Appendix 5.5.1: answers of GPT-2 large and medium after full fine-tuning on instructions.
#
#     bash reproduce/appendix_sizes.sh
#
# The prompts are the report's; the answers of each run are in FOLDER.answers.txt.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

questions=(
  "Edit the following sentence for grammar. He go to the park every day."
  "Convert the active sentence to passive: 'The manager approved the project.'"
  "Translate the following sentence into French. Where is the nearest restaurant?"
  "What is the contraction for \"will not\"?"
  "Compose a tweet about the benefits of studying abroad."
)

#    label         column   report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${scheduled[@]}" "${full[@]}" --batch-size 2 --epochs 1
cell "full, large"   answers  -       -       --  finetune_ift  --model gpt2-large
cell "full, medium"  answers  -       -       --  finetune_ift  --model gpt2-medium

version corrected

common "${corrected_ift[@]}" "${full[@]}"
cell "full, large"   answers  -       -       --  finetune_ift  --model gpt2-large
cell "full, medium"  answers  -       -       --  finetune_ift  --model gpt2-medium

finish
