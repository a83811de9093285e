"""The owner's page on loopback, and what other pages of this machine take from it."""
