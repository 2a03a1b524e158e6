"""What a training script needs around the library: run folders and a progress line."""
