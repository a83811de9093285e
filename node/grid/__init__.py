"""What the grid asks of the machine, and what it may draw beside others: orders to shed, one feeder's shares, a site's plan."""
