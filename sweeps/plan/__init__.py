"""What is asked of a sweep, and the trials that answer it."""
