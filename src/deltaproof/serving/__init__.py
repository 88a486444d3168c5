"""Many experts on one base in memory: updates held small, one at work at a time, switched in moments."""
