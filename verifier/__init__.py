"""From evidence to verdicts: comparing proof values and outputs, judging quorums.

Pure functions over signed records: whoever has the same evidence comes to the same verdict.
"""
