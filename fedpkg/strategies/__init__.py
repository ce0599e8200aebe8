"""What is asked of the clients, and what is made of their replies."""
