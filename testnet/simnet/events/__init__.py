"""The mesh as events in arrays, without tasks: discovery, scheduling, checking and placement of up to a million nodes."""
