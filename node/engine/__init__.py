"""The engine: bundles on disk, the worker process that runs them, and the daemon's keeper of that process.

`engine` is what the daemon imports; it loads no JAX. Only `worker` and `programs` do, in the worker's own process.
"""
