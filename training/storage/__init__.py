"""Files that survive a kill and a full disk, and what a run folder may hold.

files.py writes a file whole or not at all, run_folder.py says what may be written where, content_cache.py keeps what is
costly to compute, named by all that it depends on. Nothing heavy is imported.
"""
