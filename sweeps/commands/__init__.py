"""The commands other than the first five, one file each, and what commands share."""
