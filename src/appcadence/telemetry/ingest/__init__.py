"""Native logs -> telemetry directories, and what is odd about them."""
