"""A tuned recommender as a folder for others."""
