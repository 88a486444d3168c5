"""LoReFT: an edit of the residual stream inside a learned subspace, at a few tokens of the prompt."""

from typing import Literal

from deltaproof.methods.base import method
from deltaproof.methods.reft import FORMS, Form, ReftMethod


@method("loreft")
class LoReFT(ReftMethod):
    """Phi(h) = h + R^T (W h + b - R h): in the subspace that R spans, h becomes W h + b.

    R starts at random and W h + b is not R h, so the model does not start as the base; `identity_start` makes it so.
    """

    idea = "Edit the residual stream inside a learned subspace, at a few tokens of the prompt."
    equation = "Phi(h) = h + R^T (W h + b - R h), R R^T = I"
    paper = "Wu et al., 2024, arXiv:2404.03592, eq. 2; `form` has the ablations of table 17"
    trains = "2 r d + r per edit: one per layer, or two with `tied = False`; without W (`form`) r d + r"
    advice = (
        "Very few parameters and no cost while decoding; on long chains of reasoning the paper finds it behind LoRA. "
        "Try positions first, then layers and rank."
    )
    learning_rate = 9e-4  # of the authors' commands for commonsense, arithmetic and instructions
    start = "R uniform among matrices with orthonormal rows, W and b as `nn.Linear`, as the authors; not the base"
    where = "the output of each layer, at the first and the last tokens of the prompt"
    differences = (
        "R is the orthonormal factor of a free matrix, which weight decay cannot harm and which resumes exactly, where "
        "the authors' code loses R to any weight decay; dropout falls on the edit, not on the state (`dropout_on`); a "
        "short prompt is split as the paper says, where the code rounds both halves down"
    )
    starts_as_base = False

    form: Literal["full", "bias", "constant", "direct", "unconstrained"] = "full"
    """`full`: LoReFT. The ablations: `bias` R^T b, `constant` R^T (b - R h), `direct` R^T (W h + b), `unconstrained`
    W2^T (W1 h + b - W2 h)."""

    @property
    def shape(self) -> Form:
        return FORMS[self.form]
