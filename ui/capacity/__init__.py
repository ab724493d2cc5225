"""What visitors may take of the chat's memory, and what makes way when it is too much."""
