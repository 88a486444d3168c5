"""DiReFT: LoReFT without orthonormality and without the difference, which is cheaper."""

from deltaproof.methods.base import method
from deltaproof.methods.reft import FORMS, Form, ReftMethod


@method("direft")
class DiReFT(ReftMethod):
    """Phi(h) = h + W2^T (W1 h + b): LoRA's product, on the residual stream at a few tokens of the prompt.

    Both maps start at random, so the model does not start as the base; `identity_start` makes it so.
    """

    idea = "Add a low-rank map of the residual stream to itself, at a few tokens of the prompt."
    equation = "Phi(h) = h + W2^T (W1 h + b)"
    paper = "Wu et al., 2024, arXiv:2404.03592, eq. 3 (`NodireftIntervention` in the authors' code)"
    trains = "2 r d + r per edit: one per layer, or two with `tied = False`"
    advice = "Where LoReFT's subspace costs too much time; the paper finds it a little behind LoReFT."
    learning_rate = 9e-4  # of the authors' command for DiReFT
    start = "W1, W2 and b as `nn.Linear`, as the authors; not the base"
    where = "the output of each layer, at the first and the last tokens of the prompt"
    differences = (
        "dropout falls on the edit, not on the state (`dropout_on`); a short prompt is split as the paper says, where "
        "the code rounds both halves down"
    )
    starts_as_base = False

    @property
    def shape(self) -> Form:
        return FORMS["direft"]
