"""What Fallow's peers say to each other and what it means.

Pure: bytes, records and state machines, with time as an argument. No I/O, clock, randomness or logging.
"""
