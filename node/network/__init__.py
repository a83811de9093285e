"""The network behind a seam: `seam` is what others import; only `mesh` and what it uses know libp2p."""
