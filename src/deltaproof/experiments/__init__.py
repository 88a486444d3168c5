"""From a plan to specs, to records, to a table."""
