#!/usr/bin/env bash
# Figure 1: loss over the training, constant learning rate against schedule and clipping (report, section 3.1.1).
#
#     bash reproduce/figure1_schedule_curves.sh
#
# The picture is the `curve` of the runs of Table 1; the column is its lowest validation loss, of ten examples as
# published.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label                     column    report  record  --  script        what the cell alone has
version published

common "${published_ift[@]}" "${full[@]}" --model gpt2-large --batch-size 2 --epochs 1
cell "large, constant rate"      val-loss  -       1.495   --  finetune_ift  "${constant[@]}"
cell "large, schedule, clipping" val-loss  -       1.416   --  finetune_ift  "${scheduled[@]}"

version corrected

common "${corrected_ift[@]}" "${full[@]}" --model gpt2-large
cell "large, constant rate"      val-loss  =       =       --  finetune_ift  --schedule constant --warmup-ratio 0 --max-grad-norm None
cell "large, schedule"           val-loss  -       -       --  finetune_ift  --max-grad-norm None
cell "large, schedule, clipping" val-loss  =       =       --  finetune_ift

finish
