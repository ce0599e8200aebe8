"""What is done to a model or update on its way: clipped, made noisy, made small; and undone at the other end."""
