"""Studies of runs that exist: why a method scored what it scored, and how well that holds.

A study reads a run folder's kept models, measures, and writes one JSON file under `studies/`; the report reads those.
"""
