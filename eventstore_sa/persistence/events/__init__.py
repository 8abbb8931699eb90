"""Storing and reading events: the operations, the statements, and what differs between databases."""
