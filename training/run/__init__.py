"""What a run records, writes and prints.

run.py opens a run, decides when things are due and finishes it; cores.py and threads.py say how many cores it takes,
checkpoint.py resumes a killed run, results.py writes results.json, printed.py and plots.py make what a person reads,
trackers.py serves the trackers of --report-to.
"""
