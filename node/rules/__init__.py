"""The owner's rules, as pure functions: readings, preferences and the time in; whether the machine is lent, and why, out."""
