"""Reruns every table and figure of the report LoRA Finetuning GPT-2 (README.md), each from its own file.

tables.py reads the rows of a file and says which runs they need at a scale, run.py makes those that are missing, and
report.py shows the new results beside the report's.
"""
