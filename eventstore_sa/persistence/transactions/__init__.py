"""Connections, transactions and the errors of drivers: whose they are, how they are run, and what they become.

Nothing here is about events.
"""
