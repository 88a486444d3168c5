"""From a tuned model to a file that is proven equal: exports, the gates on what was written, and the card beside it."""
