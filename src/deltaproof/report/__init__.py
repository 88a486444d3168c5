"""The report: one HTML page drawn from records, and its tables and figures as files. Needs no torch."""

from deltaproof.report.export import export
from deltaproof.report.page import page, write_report

__all__ = ["export", "page", "write_report"]
