"""Snapshots of projections in the database."""
