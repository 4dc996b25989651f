"""From model and trie to ranked lists of real items."""
