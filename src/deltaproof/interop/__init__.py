"""What others measured, read as it stands."""
