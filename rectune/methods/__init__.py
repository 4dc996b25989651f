"""How examples become a tuned model; one file per method."""
