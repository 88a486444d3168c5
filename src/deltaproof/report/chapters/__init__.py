"""Chapters of the page that studies bring, each made from a run folder's `studies/NAME.json`."""

from collections.abc import Callable

from deltaproof.report.chapter import Chapter
from deltaproof.report.chapters.capacity import capacity
from deltaproof.report.chapters.evidence import evidence_chapter
from deltaproof.report.chapters.robustness import robustness
from deltaproof.report.chapters.scaling import scaling
from deltaproof.report.chapters.shipping import shipping
from deltaproof.report.study import Study

MAKERS: tuple[Callable[[Study], Chapter | None], ...] = (evidence_chapter, capacity, robustness, scaling, shipping)
"""In the order of the page; a maker gives None where its study was not made."""


def all_chapters(study: Study) -> list[Chapter]:
    return [chapter for make in MAKERS if (chapter := make(study)) is not None]


__all__ = ["Chapter", "all_chapters"]
