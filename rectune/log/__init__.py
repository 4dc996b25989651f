"""Who touched what, when; cut into histories and targets."""
