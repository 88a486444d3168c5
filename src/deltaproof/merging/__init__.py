"""Rules that make one change of weights of several, tensor by tensor."""
