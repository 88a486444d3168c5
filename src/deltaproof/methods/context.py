"""What edits may know of the forward pass under way: which tokens are real, and which of them are the prompt."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Context:
    """What the model was called with. `Tuned` reads it off every call of the model, those inside `generate` too."""

    attention_mask: Tensor | None = None
    """(batch, past + tokens), 1 for real tokens; None where the caller gave none."""
    n_past: int = 0
    """Tokens that stand in the key-value cache already: of a prompt that was seen in an earlier pass, when decoding."""
    prompt_lengths: Tensor | None = None
    """(batch,) how many real tokens the prompt has, counted from the first; None: every real token is prompt."""
    n_prompt_columns: int | None = None
    """While `generate` runs: columns of its input; what stands right of them was generated and is no prompt."""
    n_calls: int = 0
    """How often the model was called: tells a layer that is computed again from one that is computed anew."""

    def read(self, arguments: Mapping[str, Any]) -> None:
        """Take up the arguments of a call of the model."""
        self.n_calls += 1
        self.attention_mask = arguments.get("attention_mask")
        past = arguments.get("past_key_values")
        self.n_past = 0 if past is None or not hasattr(past, "get_seq_length") else int(past.get_seq_length())

    def real(self, h: Tensor) -> Tensor:
        """Which of the tokens that a layer sees in this pass are real: (batch, tokens), boolean.

        Args:
            h: what the layer sees, (batch, tokens, width).
        """
        batch, n_tokens = h.shape[:2]
        if self.attention_mask is None or self.attention_mask.ndim != 2:
            return torch.ones(batch, n_tokens, dtype=torch.bool, device=h.device)
        return self.attention_mask[:, -n_tokens:].to(h.device).bool()

    def prompt(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """First and last-plus-one column of each row's prompt among the tokens of this pass; equal where there is none.

        Padding may stand on the left or on the right. With a cache, the prompt was seen in the first pass and is
        empty in those that follow; without one, each pass sees it again.

        Returns:
            two (batch,) tensors of columns.
        """
        batch, n_tokens = h.shape[:2]
        if self.n_past:
            none = torch.zeros(batch, dtype=torch.long, device=h.device)
            return none, none
        real = self.real(h).long()
        first = real.argmax(dim=1)
        end = n_tokens - real.flip(1).argmax(dim=1)
        end = torch.where(real.any(dim=1), end, first)
        if self.n_prompt_columns is not None:
            end = end.clamp(max=self.n_prompt_columns)
        if self.prompt_lengths is not None:
            repeats = batch // len(self.prompt_lengths)  # beams stand next to each other
            lengths = self.prompt_lengths.to(h.device).repeat_interleave(repeats)
            end = torch.minimum(end, first + lengths)
        return first, end
