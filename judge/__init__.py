"""The judge of answers: prompts, back ends, replies and scores.

asking.py asks and stores every reply before anything else; measures.py has what needs no judge. Nothing here knows
torch or a model.
"""
