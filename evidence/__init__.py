"""This package says what numbers mean: runs become cells with intervals and tests, and cells become a page.

It needs numpy, scipy and matplotlib, no torch, and imports nothing else of this project.
"""
