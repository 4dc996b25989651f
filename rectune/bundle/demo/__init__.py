"""A recommender as a page."""
