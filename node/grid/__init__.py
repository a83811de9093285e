"""What the grid asks of this machine: OpenADR events of a utility, and shed orders that come over the mesh."""
