"""The configuration in words and numbers: what would run, what has run, what it means. Nothing here trains."""
