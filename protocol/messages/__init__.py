"""Messages on streams, each one deterministic CBOR map with its kind under `t`; signed records travel as their envelopes.

One module for each page of the specification that has them, and what all of them share: a no (`refusals`), types of fields
(`fields`), and the way onto a stream and off it (`codec`).
"""
