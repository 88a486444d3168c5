"""Which tokens of a prompt a method acts at: the first few, the last few, or all of them."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from deltaproof.errors import ConfigError
from deltaproof.methods.context import Context


@dataclass(frozen=True)
class Positions:
    """The first `prefix` and the last `suffix` tokens of each prompt, or every token of it."""

    prefix: int = 0
    suffix: int = 0
    everywhere: bool = False

    @classmethod
    def parse(cls, text: str) -> "Positions":
        """Read `f7+l7`, `f3`, `l1` or `all`.

        >>> Positions.parse("f7+l7")
        Positions(prefix=7, suffix=7, everywhere=False)
        """
        if text == "all":
            return cls(everywhere=True)
        match = re.fullmatch(r"(?:f([1-9]\d*))?(\+)?(?:l([1-9]\d*))?", text, re.ASCII)
        if match is None or not (match[1] or match[3]) or bool(match[2]) != bool(match[1] and match[3]):
            raise ConfigError(
                f"`positions` must read `fN+lM`, `fN`, `lM` or `all` (the first N and the last M tokens of the prompt, "
                f"N, M >= 1), got `{text}`; write for example `f7+l7`"
            )
        return cls(int(match[1] or 0), int(match[3] or 0))

    @property
    def parts(self) -> list[slice]:
        """Where prefix and suffix stand among `columns`; those that there are."""
        if self.everywhere:
            return [slice(None)]
        parts = [slice(0, self.prefix), slice(self.prefix, self.prefix + self.suffix)]
        return [part for part in parts if part.start < part.stop]

    def columns(self, context: Context, h: Tensor) -> tuple[Tensor, Tensor]:
        """Columns of this pass to act at, and which of them count: both (batch, k), the same k for every row.

        A prompt of n < p + s tokens has p' = min(p, floor(n / 2)) and s' = min(s, ceil(n / 2)) instead of p first and s
        last ones (Wu et al., 2024, arXiv:2404.03592), so that no token is met twice. Reckoned once per call
        of the model, whatever the number of layers.
        """
        key = (self, h.shape[:2], h.device)
        if key not in context.kept:
            context.kept[key] = self._columns(context, h)
        columns, counts = context.kept[key]
        return columns, counts

    def _columns(self, context: Context, h: Tensor) -> tuple[Tensor, Tensor]:
        n_tokens = h.shape[1]
        first, end = (column[:, None] for column in context.prompt(h))
        if self.everywhere:
            columns = torch.arange(n_tokens, device=h.device).expand(len(h), -1)
            return columns, (columns >= first) & (columns < end)
        n = end - first
        is_short = n < self.prefix + self.suffix
        p = torch.where(is_short, (n // 2).clamp(max=self.prefix), self.prefix)
        s = torch.where(is_short, ((n + 1) // 2).clamp(max=self.suffix), self.suffix)
        from_first = torch.arange(self.prefix, device=h.device).expand(len(h), -1)
        from_end = torch.arange(self.suffix, device=h.device).expand(len(h), -1)
        columns = torch.cat([first + from_first, end - 1 - from_end], dim=1)
        counts = torch.cat([from_first < p, from_end < s], dim=1)
        counts = counts & (columns >= 0) & (columns < n_tokens)
        return columns.clamp(0, n_tokens - 1), counts
