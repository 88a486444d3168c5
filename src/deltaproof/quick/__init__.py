"""What a CPU does faster in another form than torch's own, at the same results: dropout, attention, linear maps."""
