"""What the documentation says, made from the code or compared with it."""
