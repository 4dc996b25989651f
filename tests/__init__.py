if __name__ != "tests":
    raise ModuleNotFoundError(f"No module named {__name__!r}: the tests are no part of rectune.")
