"""What a run remembers, writes and says.

run.py is the record of a run, which opens, decides when things are due and finishes; checkpoint.py lets a killed run go
on, results.py writes results.json, printed.py and plots.py what a person reads, trackers.py what --report-to names.
"""
