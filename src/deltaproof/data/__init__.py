"""Labelled text from files, folders, the hub or memory: checked, split, and with a sealed test split."""

from deltaproof.data.dataset import Dataset
from deltaproof.data.demo import demo_data
from deltaproof.data.ledger import Opening, openings
from deltaproof.data.load import load_data, read_texts
from deltaproof.data.run_folder import read_dataset, write_splits
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split

__all__ = [
    "Dataset",
    "Opening",
    "SealedSplit",
    "Split",
    "demo_data",
    "load_data",
    "openings",
    "read_dataset",
    "read_texts",
    "write_splits",
]
