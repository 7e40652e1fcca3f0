"""Makes many runs, on this machine or on a Ray cluster, with the same results whatever their number at a time.

job.py says what a job is and what every engine does. local.py runs jobs here, in forks of one process that has imported
the libraries (warm.py). cluster.py runs them on a Ray cluster: driver.py hands them out, node.py is what a node does.
"""
