#!/usr/bin/env bash
# Beyond the report (its section 4): LoRA on convolutions, a small network that learnt upright digits and adapts to
# turned ones (benchmarks/digits.py). Seconds on any machine, the same at every scale.
#
#     bash reproduce/beyond_convolutions.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

#    label     column  report and record  --  script  what the cell alone has
version corrected

cell "full"    digits  - -  --  digits  --method full
cell "head"    digits  - -  --  digits  --method head
cell "rank 1"  digits  - -  --  digits  --method lora --lora-rank 1
cell "rank 2"  digits  - -  --  digits  --method lora --lora-rank 2
cell "rank 4"  digits  - -  --  digits  --method lora --lora-rank 4
cell "rank 8"  digits  - -  --  digits  --method lora --lora-rank 8
cell "rank 16" digits  - -  --  digits  --method lora --lora-rank 16

finish
