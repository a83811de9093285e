"""What leases could bring at most at one moment, if they were signed and ended without delay: a greatest flow of watts.

source -> who has some to spare -> those to whom it may lend, a portion each -> who wants more -> sink
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow


def most_lent_w(
    portions_w: Mapping[bytes, Mapping[bytes, int]],
    wants_w: Mapping[bytes, int],
    reaches: Callable[[bytes, bytes], bool],
) -> int:
    """In watts. `portions_w`: by lender and borrower; `wants_w`: by how much each member wants more than its share, below 0:
    less; `reaches`: whether a lender and a borrower can talk."""
    place = {key: number for number, key in enumerate(wants_w, 1)}
    source, sink = 0, len(place) + 1
    edges = [(source, place[key], -watts) for key, watts in wants_w.items() if watts < 0]
    edges += [(place[key], sink, watts) for key, watts in wants_w.items() if watts > 0]
    edges += [
        (place[lender], place[borrower], watts)
        for lender in place
        for borrower, watts in portions_w[lender].items()
        if wants_w[lender] < 0 < wants_w.get(borrower, 0) and reaches(lender, borrower)
    ]
    table = np.array(edges or [(source, sink, 0)], dtype=np.int32)
    graph = csr_array((table[:, 2], (table[:, 0], table[:, 1])), shape=(sink + 1, sink + 1), dtype=np.int32)
    return int(maximum_flow(graph, source, sink).flow_value)
