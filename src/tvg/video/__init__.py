"""Videos as frames: which stream, which frames at 2 per second, at which size, and the cache that holds them."""
