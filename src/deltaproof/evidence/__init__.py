"""The evidence for and against each claim on parameter-efficient tuning, from what a run folder's studies measured.

Reads records and the JSON of studies alone. Each claim has a file: what its source says, what is tested here in its
place, and the rule that turns numbers into a verdict.
"""

from deltaproof.evidence.collect import Evidence, evidence

__all__ = ["Evidence", "evidence"]
