"""From observed logs to canonical tables."""
