"""The bundled `.jinja` templates."""

if __name__ != "rectune.templates":
    raise ImportError("import this package as `rectune.templates`, not as `templates`")
