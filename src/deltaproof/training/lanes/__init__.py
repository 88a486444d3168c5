"""Lanes: runs that keep the base frozen and train side by side over one copy of it."""
