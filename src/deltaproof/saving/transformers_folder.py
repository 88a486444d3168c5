"""A fully tuned model as a folder that `transformers` loads."""

from pathlib import Path

from deltaproof.backbones.backbone import Backbone


def save_model_folder(backbone: Backbone, labels: tuple[str, ...] | None, folder: Path) -> None:
    """Write configuration, weights (safetensors) and tokenizer; label names stand in the configuration."""
    if labels:
        backbone.model.config.id2label = dict(enumerate(labels))  # type: ignore[union-attr]
        backbone.model.config.label2id = {label: index for index, label in enumerate(labels)}  # type: ignore[union-attr]
    backbone.model.save_pretrained(folder)  # type: ignore[operator]
    backbone.tokenizer.save_pretrained(folder)
