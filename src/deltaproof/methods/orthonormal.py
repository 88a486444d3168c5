"""A matrix with orthonormal columns, made of one that is free."""

import torch
from torch import Tensor


def orthonormal(a: Tensor) -> Tensor:
    """Q with Q^T Q = I of the thin decomposition A = Q T, T upper triangular with a positive diagonal.

    That Q is unique, and A -> c A, c > 0, leaves it as it is: weight decay on A changes no value of Q, and A = Q gives
    Q back. By Householder's reflections, so that Q is orthonormal to rounding whatever the condition of A; on the CPU
    they are also faster than two passes of Cholesky, which would need a well-conditioned A.

    Args:
        a: (d, r) with r <= d and independent columns.
    Returns:
        (d, r), in fp32 or wider.

    >>> orthonormal(torch.tensor([[-3.0], [4.0]])).T
    tensor([[-0.6000,  0.8000]])
    """
    q, t = torch.linalg.qr(a.to(torch.promote_types(a.dtype, torch.float32)))
    signed: Tensor = q * torch.where(t.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    return signed
