"""What runs: the driver, Ray Tune, and the workers."""
