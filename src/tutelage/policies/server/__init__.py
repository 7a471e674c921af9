"""Models on servers, and the server of our own."""
