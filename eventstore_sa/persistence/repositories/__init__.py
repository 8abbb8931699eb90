"""All statements, written once: synchronous, a connection in and values out."""
