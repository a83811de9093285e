"""The fidelity with every task and message: the real code of nodes and clients on a simulated network and engine.

`virtual` makes a run of trio depend on its seed alone, `medium` and `network` stand in for libp2p and the internet, `model`
and `engine` for the worker. `machines` builds nodes and clients of the real parts, `simulation` a mesh of them, and
`checkers` say afterwards what the design forbids and did happen. `characters` and `cheats` are who departs from the rules,
`contents` what is fetched.
"""
