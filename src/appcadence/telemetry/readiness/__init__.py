"""What telemetry can show before anything is trained on it."""
