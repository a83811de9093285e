"""What reads the machine: an adapter for each way in which it can be asked. Each says why when it cannot."""
