"""What an update of weights is made of: spectra, nulls of noise and rounding, subspaces, intruder dimensions."""
