#!/usr/bin/env bash
# Beyond the report (its section 4): LoRA on convolutions, a small network that learnt upright digits and adapts to
# turned ones (benchmarks/digits.py). It takes seconds on any machine and is the same at every scale.
#
#     bash reproduce/beyond_convolutions.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

corrected digits  "full"     python benchmarks/digits.py --method full
corrected digits  "head"     python benchmarks/digits.py --method head
corrected digits  "rank 1"   python benchmarks/digits.py --method lora --lora-rank 1
corrected digits  "rank 2"   python benchmarks/digits.py --method lora --lora-rank 2
corrected digits  "rank 4"   python benchmarks/digits.py --method lora --lora-rank 4
corrected digits  "rank 8"   python benchmarks/digits.py --method lora --lora-rank 8
corrected digits  "rank 16"  python benchmarks/digits.py --method lora --lora-rank 16
