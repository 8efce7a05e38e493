"""One file a revision, each from the one before; a revision that was published is never changed."""
