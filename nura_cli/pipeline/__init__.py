"""The stages, one file each, and the pure decisions they share."""
