"""A test network as a person sees it: in a terminal, and as a page on loopback."""
