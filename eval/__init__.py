"""What a number means: metrics, baselines, intervals, the report."""

if __name__ != "rectune.eval":
    raise ImportError("import this package as `rectune.eval`, not as `eval`")
