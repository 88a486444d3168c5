"""The command line: a command is one API call."""
