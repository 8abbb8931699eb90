"""Looking at an event store: lists with figures, sizes, who holds readers back, what is wrong. It only reads."""
