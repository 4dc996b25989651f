"""`python -m rectune`, `accelerate launch -m rectune` and `torchrun -m rectune` start here."""

from rectune.cli import entry

if __name__ == "__main__":
    entry()
