"""One folder, the stages in it, the report."""
