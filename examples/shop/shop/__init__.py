"""A shop: orders over HTTP, their events, and what follows from them."""
