"""The mesh under virtual time: one scenario format, two fidelities, replayed by its seed.

`scenario` says what is simulated, `days` and `regions` what the world does, `figures` what came of it. `run` is either
fidelity: every task and message of the real code, or events alone, up to a million nodes.
"""
