"""What a training will need, said before anything is downloaded or run."""
