"""Subscriptions in the database: checkpoints, leases, parked events."""
