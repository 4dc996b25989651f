"""Writers: functions that say in words what an item is good for, or what a person likes.

A writer is `write(items, asked, *, kind, ...keys of the recipe...) -> texts`. `items` is the item table; `asked` holds one
list of item codes a text: the item for an 'intention', the history (oldest first) for a 'preference'. An empty text means
that nothing could be said.
"""
