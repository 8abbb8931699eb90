"""Stored projections: saving, searching and rebuilding them, and updating them in the transactions of publishes."""
