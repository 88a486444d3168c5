"""Contract suites that others can run on their own methods and tasks."""
