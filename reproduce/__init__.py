"""Every table and figure of the report LoRA Finetuning GPT-2 (README.md) is run again, each from a file of its own.

tables.py reads the rows of a file and says which runs they take at a scale, run.py makes those that are missing, and
report.py shows what came out beside what the report says.
"""
