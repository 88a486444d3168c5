"""Evaluation: what a tuned model answers, how well, how fast."""
