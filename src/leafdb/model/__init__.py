"""What a value is: keys, actors, causal clocks, records and their one merge, sealed contexts, buckets. Pure."""
