#!/usr/bin/env bash
# Figure 1: loss over the training, constant learning rate against schedule and clipping (report, section 3.1.1).
#
#     bash reproduce/figure1_schedule_curves.sh
#
# The picture shows the curves of Table 1's runs; the column is the lowest validation loss of each curve (of ten
# examples, as published).
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${full[@]}" --model gpt2-large --batch-size 2 --epochs 1)
published val-loss  "constant rate (report: large)"          -  1.495  "${run[@]}" "${constant[@]}"
published val-loss  "schedule and clipping (report: large)"  -  1.416  "${run[@]}" "${scheduled[@]}"

corrected val-loss  "constant rate (report: large)"          "${ift_full_large[@]}" --schedule constant --warmup-ratio 0 --max-grad-norm None
corrected val-loss  "schedule (report: large)"               "${ift_full_large[@]}" --max-grad-norm None
corrected val-loss  "schedule and clipping (report: large)"  "${ift_full_large[@]}"
