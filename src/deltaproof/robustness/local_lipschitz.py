"""How steep a model is at each example: the spectral norm of d logits / d token vectors, and the margin over it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from deltaproof.evaluation.predict import in_evaluation
from deltaproof.robustness.embeddings import Offset, embedding_offset
from deltaproof.seeding import generator
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, collate


@dataclass(frozen=True)
class LocalLipschitz:
    """Slope, lead and size at each example; rows in their order."""

    lipschitz: np.ndarray
    """(n,) largest stretch of a small change of the token vectors on its way to the logits."""
    margin: np.ndarray
    """(n,) by how much the highest logit leads the next; nan where there is one logit."""
    input_norm: np.ndarray
    """(n,) l2 norm of the row's token vectors."""

    @property
    def radius(self) -> np.ndarray:
        """(n,) margin / (sqrt(2) lipschitz): how far the vectors may move before the answer can turn.

        No certificate: the slope is that at the example, and may grow on the way.
        """
        return np.asarray(self.margin / (np.sqrt(2) * self.lipschitz))

    @property
    def relative_radius(self) -> np.ndarray:
        """(n,) the radius as a share of the vectors' norm: on one scale with the epsilon of `pgd`."""
        return np.asarray(self.radius / self.input_norm)


def local_lipschitz(
    model: nn.Module,
    encoded: Encoded,
    pad_token_id: int,
    *,
    n_iterations: int | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> LocalLipschitz:
    """The local Lipschitz constant of the logits in the vectors of all tokens but padding, at each row, in fp32.

    Args:
        model: a `Tuned`, or any model with a token embedding.
        n_iterations: steps of power iteration on J^T J, one Jacobian-vector and one vector-Jacobian product each: a
            lower bound that rises to the norm. None: the norm of the whole Jacobian, one product per logit; better
            while the logits are few.
    """

    def measure(size: int, device: torch.device) -> np.ndarray:
        found = np.zeros((3, len(encoded)))
        for rows in evaluation_batches(encoded.lengths, size):
            batch = {key: value.to(device) for key, value in collate(encoded, rows, pad_token_id).items()}
            # attention by its plain formula, which differentiates forward as well as backward
            with embedding_offset(model) as offset, sdpa_kernel(SDPBackend.MATH):
                jacobian = _Jacobian(model, offset, batch)
                if n_iterations is None:
                    slopes = jacobian.norms()
                else:
                    slopes = jacobian.power_iteration(n_iterations, rows, seed)
                found[:, rows] = torch.stack([slopes, jacobian.margins(), jacobian.sizes()]).cpu().numpy()
        return found

    return LocalLipschitz(*in_evaluation(model, batch_size, measure))


class _Jacobian:
    """d logits / d vectors of each row of a batch, at the vectors as they are."""

    def __init__(self, model: nn.Module, offset: Offset, batch: dict[str, Tensor]) -> None:
        self.model, self.offset, self.batch = model, offset, batch
        with torch.no_grad():
            model(**batch)
        assert offset.vectors is not None, "the model calls its token embedding"
        self.vectors = offset.vectors
        self.real = batch["attention_mask"][..., None].to(self.vectors.dtype)
        self.delta = torch.zeros_like(self.vectors).requires_grad_()
        offset.value = self.delta
        self.logits: Tensor = model(**batch).logits

    def transposed_product(self, u: Tensor) -> Tensor:
        """J^T u: (rows, logits) to (rows, tokens, width); padding counts for nothing."""
        (slope,) = torch.autograd.grad(self.logits, self.delta, u, retain_graph=True)
        return slope * self.real

    def product(self, v: Tensor) -> Tensor:
        """J v: (rows, tokens, width) to (rows, logits), by forward differentiation."""
        make_dual: Any = forward_ad.make_dual
        unpack_dual: Any = forward_ad.unpack_dual
        with forward_ad.dual_level(), torch.no_grad():
            self.offset.value = make_dual(torch.zeros_like(v), v * self.real)
            tangent: Tensor | None = unpack_dual(self.model(**self.batch).logits).tangent
        assert tangent is not None, "the logits depend on the vectors"
        return tangent

    def norms(self) -> Tensor:
        """(rows,) the largest singular value, from the whole Jacobian."""
        units = torch.eye(self.logits.shape[1], dtype=self.logits.dtype, device=self.logits.device)
        rows = [self.transposed_product(unit.expand_as(self.logits)).flatten(1) for unit in units]
        jacobian = torch.stack(rows, 1).double()
        largest: Tensor = torch.linalg.eigvalsh(jacobian @ jacobian.mT)[:, -1]
        return largest.clamp_min(0).sqrt()

    def power_iteration(self, n_iterations: int, rows: np.ndarray, seed: int) -> Tensor:
        """(rows,) |J v| after `n_iterations` of v <- J^T J v / |J^T J v|, from a random start that is the row's own."""
        v = torch.zeros_like(self.vectors)
        for at, row in enumerate(rows):
            n_tokens = int(self.batch["attention_mask"][at].sum())
            v[at, :n_tokens] = torch.randn(
                n_tokens, v.shape[2], generator=generator(seed, "local_lipschitz", int(row))
            ).to(v)
        for _ in range(n_iterations):
            v = self.transposed_product(self.product(_unit(v)))
        slopes: Tensor = torch.linalg.vector_norm(self.product(_unit(v)).double(), dim=1)
        return slopes

    def margins(self) -> Tensor:
        logits = self.logits.detach().double()
        if logits.shape[1] < 2:
            return torch.full_like(logits[:, 0], torch.nan)
        best = logits.topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    def sizes(self) -> Tensor:
        sizes: Tensor = torch.linalg.vector_norm((self.vectors * self.real).double(), dim=(1, 2))
        return sizes


def _unit(v: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(v, dim=(1, 2), keepdim=True)
    return v / length.clamp_min(torch.finfo(v.dtype).tiny)
