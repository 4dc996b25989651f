"""Raw files of public sources (and your own) -> Log; one file per source."""

if __name__ != "rectune.data_builders":
    raise ImportError("import this package as `rectune.data_builders`, not as `data_builders`")
