#!/usr/bin/env bash
# Figure 2: the learning rate over the training, warmup and cosine (report, section 3.1.1).
#
#     bash reproduce/figure2_learning_rate.sh
#
# The picture shows the learning rate of one of Table 1's runs (1,200 of 6,000 steps warm up); the column is its peak.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
draws 5

run=("${published_ift[@]}" "${full[@]}" --model gpt2-large --batch-size 2 --epochs 1)
published peak-lr  "schedule and clipping (report: large)"  5e-5  5e-5  "${run[@]}" "${scheduled[@]}"

corrected peak-lr  "schedule and clipping (report: large)"  "${ift_full_large[@]}"
