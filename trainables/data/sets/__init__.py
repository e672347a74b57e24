"""Known data sets, a module for each family, which lists its images as the original archive unpacks.

A new one is a file here, with its name in `trainables/data/names.py`.
"""
