"""Engines take jobs to where they run."""
