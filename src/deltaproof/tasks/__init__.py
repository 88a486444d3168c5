"""Tasks ask and score."""
