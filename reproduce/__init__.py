"""Every table and figure of the report LoRA Finetuning GPT-2, run again: a file each, in the shell.

tables.py reads a file's rows and gives each its runs at a scale, run.py makes those that are missing, report.py shows
what came out beside what the report says.
"""
