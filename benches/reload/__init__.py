"""What deploying costs the clients: Hawksbill under load while its code changes and its workers die.

`python -m reload` from `benches/`; `make bench-reload` from the root. It writes its section of `RESULTS.md`.
"""
