"""Deliveries over HTTP with FastAPI, and a subscription in the lifespan of the application; see `app.py`."""
