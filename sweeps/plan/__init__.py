"""What a sweep is asked, and the trials that answer it."""
