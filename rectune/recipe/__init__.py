"""What is asked: YAML read, names resolved, arguments checked."""
