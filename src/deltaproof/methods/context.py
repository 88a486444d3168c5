"""What edits may know of the forward pass under way: which tokens are real, and which of them are the prompt."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deltaproof.errors import ConfigError


@dataclass
class Context:
    """What the model was called with. `Tuned` reads it off every call of the model, those inside `generate` too."""

    attention_mask: Tensor | None = None
    """(batch, past + tokens), 1 for real tokens; None where the caller gave none."""
    n_past: int = 0
    """Tokens that stand in the key-value cache already: of a prompt that was seen in an earlier pass, when decoding."""
    prompt_lengths: Tensor | None = None
    """(batch,) how many real tokens the prompt has, counted from the first; None: see `labels`."""
    labels: Tensor | None = None
    """(batch, tokens) of a causal model's loss: the prompt ends before the first that is not -100; None: every real
    token is prompt."""
    n_prompt_columns: int | None = None
    """While `generate` runs: columns of its input; what stands right of them was generated and is no prompt."""
    prompt_mask: Tensor | None = None
    """While `generate` runs: the mask that it was given, (prompts, columns of its input), or None."""
    n_calls: int = 0
    """How often the model was called: tells a layer that is computed again from one that is computed anew."""
    announced_lengths: Tensor | None = None
    """The `prompt_lengths` of the call that is about to begin."""
    kept: dict[Any, Any] = field(default_factory=dict)
    """What edits keep for each other within one call, under keys of their own."""

    def read(self, arguments: Mapping[str, Any], labels: Tensor | None = None) -> None:
        """Take up the arguments of a call of the model."""
        self.n_calls += 1
        self.kept = {}
        self.attention_mask = arguments.get("attention_mask")
        past = arguments.get("past_key_values")
        self.n_past = 0 if past is None or not hasattr(past, "get_seq_length") else int(past.get_seq_length())
        self.prompt_lengths = self.announced_lengths  # a call that peft passes on is read twice
        self.labels = labels

    def real(self, h: Tensor) -> Tensor:
        """Which of the tokens that a layer sees in this pass are real: (batch, tokens), boolean.

        Args:
            h: what the layer sees, (batch, tokens, width).
        """
        batch, n_tokens = h.shape[:2]
        if not _has_columns(self.attention_mask):
            return torch.ones(batch, n_tokens, dtype=torch.bool, device=h.device)
        _check_order(h, self.attention_mask)
        return self.attention_mask[:, -n_tokens:].to(h.device).bool()  # type: ignore[index]

    @property
    def sees_prompt(self) -> bool:
        """Whether tokens of a prompt may be in this pass: not while decoding with a cache."""
        return self.n_past == 0 or (self.n_prompt_columns is not None and self.n_past < self.n_prompt_columns)

    def prompt(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """First and last-plus-one column of each row's prompt, counted from the first token of this pass.

        Padding may stand on the left or on the right. With a cache, the prompt was seen in the first pass and is
        empty in those that follow; without one, each pass sees it again. Where `generate` sends a long prompt through
        in pieces, the columns may lie outside of this pass: left of it below 0, right of it past its tokens.

        Returns:
            two (batch,) tensors of columns, equal where there is no prompt.
        Raises:
            ConfigError: the mask does not say which tokens are real, or labels ask for every token of a row.
        """
        key = ("prompt", h.device)
        if key not in self.kept:
            self.kept[key] = self._prompt(h)
        first, end = self.kept[key]
        return first, end

    def _prompt(self, h: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(h)
        if not self.sees_prompt:
            none = torch.zeros(batch, dtype=torch.long, device=h.device)
            return none, none
        real = self._real_from_the_start(h)[:, : self.n_prompt_columns]
        first = real.argmax(dim=1)
        end = real.shape[1] - real.flip(1).argmax(dim=1)
        end = torch.where(real.any(dim=1), end, first)
        if self.prompt_lengths is not None:
            end = torch.minimum(end, first + self._checked_lengths(batch).to(h.device))
        elif self.labels is not None:
            end = torch.minimum(end, self._first_answered(first, end))
        return first - self.n_past, end - self.n_past

    def _real_from_the_start(self, h: Tensor) -> Tensor:
        """Which tokens are real, those of earlier passes included: (batch, past + tokens), 0 or 1."""
        batch, n_tokens = h.shape[:2]
        if _has_columns(self.prompt_mask):
            mask: Tensor = self.prompt_mask  # type: ignore[assignment]
            n_beams = batch // len(mask)  # they stand next to each other
            return mask.to(h.device).ne(0).long().repeat_interleave(n_beams, dim=0)
        if self.attention_mask is None:
            return torch.ones(batch, self.n_past + n_tokens, dtype=torch.long, device=h.device)
        if not _has_columns(self.attention_mask):
            raise ConfigError(
                "a method that acts at a prompt's tokens needs an attention mask of the shape (batch, tokens), got "
                "another; give `attention_mask` in that shape, to `generate` too"
            )
        _check_order(h, self.attention_mask)
        return self.attention_mask.to(h.device).ne(0).long()

    def _checked_lengths(self, batch: int) -> Tensor:
        assert self.prompt_lengths is not None
        if self.prompt_lengths.shape != (batch,):
            raise ConfigError(
                f"`prompt_lengths` must hold one number per row, the shape ({batch},), got "
                f"{tuple(self.prompt_lengths.shape)}; give the number of real tokens of each row's prompt"
            )
        return self.prompt_lengths

    def _first_answered(self, first: Tensor, end: Tensor) -> Tensor:
        """The first column that the labels ask for; `end` where they ask for none."""
        answered = self.labels.to(end.device).ne(-100)  # type: ignore[union-attr]
        column = torch.where(answered.any(dim=1), answered.long().argmax(dim=1), end)
        if bool(((column <= first) & (end > first)).any()):
            raise ConfigError(
                "a method that acts at a prompt's tokens needs to know where each prompt ends, but the labels ask for "
                "every token of a row; set the prompt's labels to -100, or give `prompt_lengths`"
            )
        return column

    def recomputation(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """For `checkpoint(context_fn=…)`: what is computed again sees what it saw, whatever was called since."""
        return nullcontext(), self._as_it_was({**vars(self)})

    @contextmanager
    def _as_it_was(self, then: dict[str, Any]) -> Iterator[None]:
        now = {**vars(self)}
        vars(self).update({**then, "n_calls": self.n_calls})
        try:
            yield
        finally:
            vars(self).update(now)


def _has_columns(mask: Any) -> bool:
    """Whether a mask tells real tokens by their columns, and not who sees whom."""
    return isinstance(mask, Tensor) and mask.ndim == 2


def _check_order(h: Tensor, mask: Any) -> None:
    if len(h) != len(mask) == h.shape[1]:
        raise ConfigError(
            f"a method that acts at tokens, or counts them, needs layers that see (batch, tokens, width), got "
            f"{tuple(h.shape)} where {len(mask)} rows went in: the tokens come first, as in XLNet; take a method that "
            f"treats all tokens alike, such as `lora`"
        )
