"""Answers for one file of data: LoRA or full fine-tuning, which rank, which learning rate, at what cost?

scripts/study.py races arms and rates on validation examples (evidence/racing.py), tests what it chose, and says it.
"""
