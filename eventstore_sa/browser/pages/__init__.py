"""The pages: each a generator of steps that reads what it shows, a page at a time, and returns an answer."""
