"""Words to token ids; knows no task."""
