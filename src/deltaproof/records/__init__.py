"""What runs are asked and what they measured, on disk; free of torch, so that a report needs no torch."""
