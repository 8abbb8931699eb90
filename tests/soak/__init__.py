"""The order soak: proves, or refutes, that nobody misses an event (`python -m tests.soak --seconds 60`).

`writer` and `reader` are programs, started as processes by `run`, which also kills them, kills their connections and
decides their prepared transactions. Writers note in a `journal` what they know of each commit; `verdict` compares the
journals and what the readers saw with the table. `fences` checks the invariant behind that in every transaction. `plan` is
what all of them are told; `clients` hides drivers; `mutations` are the ways to break it.
"""
