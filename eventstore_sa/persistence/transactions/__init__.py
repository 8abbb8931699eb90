"""Whose connection work is done on, in whose transaction, and which error comes of it; nothing here is about events."""
