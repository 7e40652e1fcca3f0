"""What numbers mean, and how they are shown: runs become cells with intervals and tests, cells a page with pictures.

Knows numpy, scipy and matplotlib, no torch, and nothing else of this project.
"""
