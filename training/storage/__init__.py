"""Files that survive a kill and a full disk, and what a run folder may hold.

files.py writes a file whole or not at all, run_folder.py says what may be written where, and content_cache.py keeps
costly results under a hash of all that they depend on. Nothing heavy is imported.
"""
