"""What the machine draws for its work: kept within a budget, measured where it can be, and counted for each job."""
