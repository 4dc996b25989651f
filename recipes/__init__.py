"""The bundled recipes: one YAML, one run, one result."""

if __name__ != "rectune.recipes":
    raise ImportError("import this package as `rectune.recipes`, not as `recipes`")
