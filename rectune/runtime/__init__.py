"""What every room needs of the machine: processes, random seeds, the cache, files."""
