"""A local network of real processes, with liars and with faults, and the demonstration that runs on it."""
