"""A recommender behind HTTP."""
